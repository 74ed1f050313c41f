//! Metrics as text that is OpenMetrics and that Prometheus' own tools read too: one text serves a scrape, `promtool`, and
//! the textfile collector of node_exporter.
//!
//! A counter goes without a type, and is known by its `_total`: OpenMetrics has the type under the name without that
//! end, those tools have it under the whole name, and each refuses the other's way. The JSON has every type.

use std::fmt::Write as _;

use crate::api::{Family, MetricType, Metrics, Number, Sample};
use crate::model::printable;

/// The text, ended by `# EOF`.
pub fn text(metrics: &Metrics) -> String {
    let families: String = metrics.metrics.iter().map(family).collect();
    format!("{families}# EOF\n")
}

fn family(family: &Family) -> String {
    let name = &family.name;
    let mut text = String::new();
    if family.metric_type != MetricType::Counter {
        text += &format!("# TYPE {name} {}\n", super::word(family.metric_type));
        // A unit is the end of the name, which that of a counter is not.
        text += &family.unit.as_ref().map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
    }
    text += &format!("# HELP {name} {}\n", escaped(&family.help));
    family.samples.iter().for_each(|sample| text += &line(sample));
    text
}

fn line(sample: &Sample) -> String {
    let labels: Vec<String> =
        sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let mut text = format!("{}{labels} ", sample.name);
    // Writing to a string does not fail.
    let _ = match sample.value {
        Number::Whole(value) => writeln!(text, "{value}"),
        Number::Real(value) => writeln!(text, "{value}"),
    };
    text
}

/// A help text or a label's value. A line's end has an escape of the format; what else a name could hide text with is shown.
fn escaped(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    lines.join("\n").replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_escaped() {
        let labels = [("name".to_owned(), "a\"b\\c\nd\u{202e}e".to_owned())].into();
        let sample = Sample { name: "x".into(), labels, value: Number::Real(0.25) };
        assert_eq!(line(&sample), "x{name=\"a\\\"b\\\\c\\nd\\\\u{202e}e\"} 0.25\n");
    }

    #[test]
    fn a_family_says_type_unit_and_help_before_its_samples() {
        let sample = |name: &str| Sample { name: name.into(), labels: [].into(), value: Number::Whole(u64::MAX) };
        let of = |name: &str, metric_type| Family {
            name: name.into(),
            metric_type,
            unit: Some("bytes".into()),
            help: "How many.".into(),
            samples: vec![sample(name)],
        };
        let metrics =
            Metrics { metrics: vec![of("a_bytes", MetricType::Gauge), of("b_bytes_total", MetricType::Counter)] };
        assert_eq!(
            text(&metrics),
            "# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n# HELP a_bytes How many.\na_bytes 18446744073709551615\n\
             # HELP b_bytes_total How many.\nb_bytes_total 18446744073709551615\n# EOF\n"
        );
    }
}
