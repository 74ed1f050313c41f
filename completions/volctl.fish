# Completion of volctl for fish: volctl itself knows its commands, and asks the daemon for names.

function __volctl_candidates
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    set -l candidates ($words[1] complete words -- $words "$last" 2>/dev/null)
    switch $status
        case 0
            string join -- \n $candidates
        case 3
            __fish_complete_path "$last"
    end
end

complete -c volctl -f -a '(__volctl_candidates)'
