//! A line as bash has it, taken apart as the shell would, and what is put in so that the shell reads a value again.

/// At these, unquoted, bash begins another word to be replaced (`COMP_WORDBREAKS`); names may hold them.
const BREAKS: [char; 2] = [':', '='];

/// What was typed, up to the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// Without quotes; the last is to be completed.
    words: Vec<String>,
    /// The quote that is open at the end.
    quote: Option<char>,
    /// The length of the last word's part that bash does not replace, bytes.
    kept: usize,
}

impl Typed {
    /// Words that a shell has taken apart.
    pub fn of_words(words: Vec<String>) -> Self {
        Self { words, ..Self::default() }
    }

    /// Takes a line apart: words end at unquoted blanks.
    pub fn of_line(line: &str) -> Self {
        let mut typed = Self { words: vec![String::new()], ..Self::default() };
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match (typed.quote, character) {
                (Some(quote), _) if quote == character => typed.quote = None,
                (Some('\''), _) => typed.push(character),
                (_, '\\') => typed.extend(characters.next()),
                (None, '\'' | '"') => typed.quote = Some(character),
                (None, ' ' | '\t' | '\n') => typed.end_word(),
                (None, _) if BREAKS.contains(&character) => {
                    typed.push(character);
                    typed.kept = typed.words.last().map_or(0, String::len);
                }
                _ => typed.push(character),
            }
        }
        typed
    }

    fn push(&mut self, character: char) {
        self.extend(Some(character));
    }

    fn extend(&mut self, characters: impl IntoIterator<Item = char>) {
        if let Some(word) = self.words.last_mut() {
            word.extend(characters);
        }
    }

    fn end_word(&mut self) {
        if self.words.last().is_some_and(|word| !word.is_empty()) {
            self.words.push(String::new());
        }
        self.kept = 0;
    }

    /// The words before the last one, without the program's name, and the last one.
    pub fn words(&self) -> (&[String], &str) {
        match self.words.split_last() {
            Some((last, before)) => (before.get(1..).unwrap_or_default(), last),
            None => (&[], ""),
        }
    }

    /// What bash puts in place of its word so that the whole is this value; none where it does not begin as typed.
    pub fn insertion(&self, value: &str) -> Option<String> {
        let (_, last) = self.words();
        let rest = value.strip_prefix(last).map(|_| value.get(self.kept..).unwrap_or_default())?;
        // Bash closes the quote, except where it takes the last character for the one that does.
        let closing = self.quote.filter(|quote| value.ends_with(*quote));
        let quoted = match self.quote {
            Some('\'') => rest.replace('\'', r"'\''"),
            Some(_) => escaped(rest, |c| matches!(c, '"' | '\\' | '$' | '`')),
            None => escaped(rest, |c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_./,+@%".contains(c)),
        };
        Some(quoted.chars().chain(closing).collect())
    }
}

fn escaped(text: &str, is_special: impl Fn(char) -> bool) -> String {
    let mut all = String::new();
    for character in text.chars() {
        if is_special(character) {
            all.push('\\');
        }
        all.push(character);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(line: &str) -> String {
        Typed::of_line(line).words().1.to_owned()
    }

    #[test]
    fn lines_are_read_as_the_shell_reads_them() {
        for (line, word) in [
            ("volctl ", ""),
            ("volctl show my\\ di", "my di"),
            ("volctl show 'my di", "my di"),
            ("volctl show \"a\\\"b", "a\"b"),
            ("volctl show 'it'\\''s", "it's"),
            ("volctl   show  a:b", "a:b"),
            ("", ""),
        ] {
            assert_eq!(last(line), word, "{line}");
        }
        assert_eq!(Typed::of_line("volctl show 'a b' c").words().0, ["show", "a b"]);
    }

    #[test]
    fn what_is_put_in_continues_what_was_typed() {
        for (line, value, inserted) in [
            ("volctl show m", "my disk", Some(r"my\ disk")),
            ("volctl show 'm", "it's", None),
            ("volctl show 'i", "it's", Some(r"it'\''s")),
            ("volctl show \"c", "c$d\"e", Some(r#"c\$d\"e"#)),
            ("volctl show \"q", "q\"x\"", Some(r#"q\"x\"""#)),
            ("volctl show a:", "a:b c", Some(r"b\ c")),
            ("volctl show a", "a:b", Some(r"a\:b")),
            ("volctl show a\\:b", "a:bc", Some(r"a\:bc")),
            ("volctl attach --vm=w", "--vm=worker", Some("worker")),
            ("volctl show ü", "übung", Some("übung")),
        ] {
            assert_eq!(Typed::of_line(line).insertion(value).as_deref(), inserted, "{line}");
        }
    }
}
