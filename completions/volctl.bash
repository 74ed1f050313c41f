# Completion of volctl for bash: volctl itself knows its commands, and asks the daemon for names.

_volctl() {
    local candidates
    COMPREPLY=()
    candidates=$("$1" complete bash -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case $? in
        0) [[ -z $candidates ]] || mapfile -t COMPREPLY <<<"$candidates" ;;
        3) compopt -o default ;;
    esac
}

complete -F _volctl volctl
