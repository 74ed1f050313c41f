# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_volctl_global_optspecs
    string join \n socket= json q/quiet h/help V/version
end

function __fish_volctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_volctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_volctl_using_subcommand
    set -l cmd (__fish_volctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c volctl -n "__fish_volctl_needs_command" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_needs_command" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_needs_command" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_needs_command" -s V -l version -d 'Print version'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "create" -d 'Create a volume'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "attach" -d 'Attach volumes to this VM, or to another one'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "detach" -d 'Detach volumes from this VM, or from another one'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "move" -d 'Move volumes from this VM to another one: end the export, detach here safely, attach there'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "export" -d 'Serve volumes that are attached here over NBD'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "unexport" -d 'End exports; the volumes stay attached'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "delete" -d 'Delete volumes; recoverable, except with --expunge'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "recover" -d 'Bring deleted volumes back'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "resize" -d 'Grow a volume, and wait until its device here shows the new size'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "hold" -d 'Hold volumes: nobody can detach, unexport, move, delete, revert, resize or reclaim them until they are released'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "release" -d 'Release volumes that are held, whoever holds them'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "ls" -d 'List the volumes; with -q, their ids'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "show" -d 'Show everything about one volume'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "device" -d 'Print the stable device path of volumes that are attached here'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "find" -d 'Say which volume a device is'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "exports" -d 'List the exports; with -q, their names'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "snapshot" -d 'Take, list, revert to and delete snapshots of volumes'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "ops" -d 'List the operations, newest first; with -q, their ids'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "events" -d 'Show what happened, a line each: operations, devices, exports, clients, CloudStack; with -q, the numbers'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "health" -d 'Check the daemon and what it depends on; exit code 1 where something is wrong'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "sync" -d 'Reconcile what volctld knows with CloudStack, the kernel and the exports, and say what differed'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "store" -d 'Look after the state store'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "drain" -d 'Take no new changes and clients, let the present ones end, end the exports, and say what stays attached'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "rpc" -d 'Call a method of the daemon\'s JSON-RPC interface, and print its result as JSON'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "version" -d 'Print the versions of volctl and of the daemon'
complete -c volctl -n "__fish_volctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l size -d 'Size: an integer with K, M, G or T (powers of 1024), such as 10G; CloudStack rounds up to whole GiB' -r
complete -c volctl -n "__fish_volctl_using_subcommand create" -l offering -d 'Disk offering (id or name)' -r
complete -c volctl -n "__fish_volctl_using_subcommand create" -l zone -d 'Zone (id or name)' -r
complete -c volctl -n "__fish_volctl_using_subcommand create" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand create" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand create" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand create" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand create" -l attach -d 'Attach it to this VM'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l export -d 'Export it over NBD; implies --attach'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l exists-ok -d 'Take a volume that has this name already, where size, offering and zone agree'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand create" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand create" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l vm -d 'Attach to this VM (id or name) instead of the one that volctl runs in' -r
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l root -d 'Attach as the root disk of that VM, which must be stopped and have none'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l export -d 'Export over NBD as well'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l read-only -d 'The export refuses writes'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l from -d 'Detach from this other VM (id or name); asks first where it is running' -r
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l drain -d 'Take no new NBD clients, and let the present ones finish for at most this long' -r
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l force -d 'Close the connections of NBD clients; overrides nothing else'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l yes -d 'Do not ask'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand detach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l to -d 'The VM (id or name) that they go to' -r
complete -c volctl -n "__fish_volctl_using_subcommand move" -l drain -d 'Take no new NBD clients, and let the present ones finish for at most this long' -r
complete -c volctl -n "__fish_volctl_using_subcommand move" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand move" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand move" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand move" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand move" -l root -d 'Attach as the root disk of that VM, which must be stopped'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l swap-root -d 'Detach that VM\'s present root disk first; it is kept'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l force -d 'Close the connections of NBD clients; overrides nothing else'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l yes -d 'Do not ask; needed with --swap-root where there is no terminal'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand move" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand move" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand move" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand export" -l name -d 'Export name [default: vol-<volume id>]' -r
complete -c volctl -n "__fish_volctl_using_subcommand export" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand export" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand export" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand export" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand export" -l read-only -d 'Refuse writes'
complete -c volctl -n "__fish_volctl_using_subcommand export" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand export" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand export" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand export" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand export" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l drain -d 'Take no new NBD clients, and let the present ones finish for at most this long' -r
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l force -d 'Close the connections of NBD clients'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand unexport" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l expunge -d 'Delete for ever'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l yes -d 'Do not ask; needed where there is no terminal'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand recover" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand recover" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand recover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand resize" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand resize" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand resize" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand hold" -l note -d 'Why, for whoever is refused' -r
complete -c volctl -n "__fish_volctl_using_subcommand hold" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand hold" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand hold" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand hold" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand release" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand release" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand release" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand release" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand ls" -l max-age -d 'Ask CloudStack again for what is older than this [default: 30s]' -r
complete -c volctl -n "__fish_volctl_using_subcommand ls" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ls" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ls" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand show" -l max-age -d 'Ask CloudStack again for what is older than this [default: 30s]' -r
complete -c volctl -n "__fish_volctl_using_subcommand show" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand show" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand show" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand show" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand device" -l wait -d 'Wait at most this long for the device to appear' -r
complete -c volctl -n "__fish_volctl_using_subcommand device" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand device" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand device" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand device" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand find" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand find" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand find" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand find" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand exports" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand exports" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand exports" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand exports" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -f -a "create" -d 'Take a snapshot of a volume, or of each volume of a VM'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -f -a "ls" -d 'List snapshots, newest first; with -q, their ids'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -f -a "revert" -d 'Give a volume back what it had when a snapshot was taken, its size too'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -f -a "delete" -d 'Delete snapshots for ever; their volumes are not touched'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls revert delete help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l vm -d 'All volumes of this VM (id or name), one after another' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l name -d 'Name of the snapshot; the volume\'s name and the time where it is left out' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l tag -d 'Tag the snapshot; may be repeated' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -l volume -d 'Of this volume (id, unique name or unique id prefix)' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -l vm -d 'Of the volumes of this VM (id or name)' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -l tag -d 'With this tag; of several with all' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l yes -d 'Do not ask; needed where there is no terminal'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from revert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l timeout -d 'Wait at most this long (30s, 10m, 1h30m); what was sent to CloudStack by then goes on' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l request-id -d 'Your own id of this request: the same again returns the same operation' -r
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l yes -d 'Do not ask; needed where there is no terminal'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l dry-run -d 'Say what would be asked of CloudStack and done here, and do nothing'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l no-wait -d 'Return as soon as the operation is accepted, and print it'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l queue -d 'Wait in line where another operation has the volume, instead of failing as busy'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from help" -f -a "create" -d 'Take a snapshot of a volume, or of each volume of a VM'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List snapshots, newest first; with -q, their ids'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from help" -f -a "revert" -d 'Give a volume back what it had when a snapshot was taken, its size too'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from help" -f -a "delete" -d 'Delete snapshots for ever; their volumes are not touched'
complete -c volctl -n "__fish_volctl_using_subcommand snapshot; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -l limit -d 'At most so many [default: 100]' -r
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -f -a "show" -d 'Show one operation'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -f -a "wait" -d 'Wait until operations have ended'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -f -a "cancel" -d 'Cancel an operation that has not sent its change to CloudStack yet'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -f -a "retry" -d 'Let a stuck operation look again and go on from its step'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -f -a "abandon" -d 'End an operation whose outcome is not known: you take over, and its volume is free again'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and not __fish_seen_subcommand_from show wait cancel retry abandon help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from show" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from wait" -l timeout -d 'Wait at most this long' -r
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from wait" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from wait" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from wait" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from cancel" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from cancel" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from cancel" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from cancel" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from retry" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from retry" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from retry" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from retry" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from abandon" -l reason -d 'Why, for the record' -r
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from abandon" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from abandon" -l yes -d 'Do not ask; needed where there is no terminal'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from abandon" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from abandon" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from abandon" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one operation'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from help" -f -a "wait" -d 'Wait until operations have ended'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from help" -f -a "cancel" -d 'Cancel an operation that has not sent its change to CloudStack yet'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from help" -f -a "retry" -d 'Let a stuck operation look again and go on from its step'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from help" -f -a "abandon" -d 'End an operation whose outcome is not known: you take over, and its volume is free again'
complete -c volctl -n "__fish_volctl_using_subcommand ops; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand events" -l after -d 'Only what came after the event of this number [default: 0, which is everything that is kept]' -r
complete -c volctl -n "__fish_volctl_using_subcommand events" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand events" -s f -l follow -d 'Go on with what happens from now on, until Ctrl-C'
complete -c volctl -n "__fish_volctl_using_subcommand events" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand events" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand health" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand health" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand health" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand health" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand sync" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand sync" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand sync" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand sync" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand store; and not __fish_seen_subcommand_from backup help" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand store; and not __fish_seen_subcommand_from backup help" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand store; and not __fish_seen_subcommand_from backup help" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand store; and not __fish_seen_subcommand_from backup help" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand store; and not __fish_seen_subcommand_from backup help" -f -a "backup" -d 'Copy the store to a new file while it is in use'
complete -c volctl -n "__fish_volctl_using_subcommand store; and not __fish_seen_subcommand_from backup help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand store; and __fish_seen_subcommand_from backup" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand store; and __fish_seen_subcommand_from backup" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand store; and __fish_seen_subcommand_from backup" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand store; and __fish_seen_subcommand_from backup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "backup" -d 'Copy the store to a new file while it is in use'
complete -c volctl -n "__fish_volctl_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand drain" -l timeout -d 'Give up waiting after so long; nothing new is taken all the same' -r
complete -c volctl -n "__fish_volctl_using_subcommand drain" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand drain" -l detach -d 'Detach this VM\'s data volumes as well'
complete -c volctl -n "__fish_volctl_using_subcommand drain" -l end -d 'Take changes and clients again'
complete -c volctl -n "__fish_volctl_using_subcommand drain" -l dry-run -d 'Only say what is in the way, and exit with 4 where anything is'
complete -c volctl -n "__fish_volctl_using_subcommand drain" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand drain" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand rpc" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand rpc" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand rpc" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand rpc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c volctl -n "__fish_volctl_using_subcommand version" -l socket -d 'The daemon\'s socket' -r -F
complete -c volctl -n "__fish_volctl_using_subcommand version" -l json -d 'Print one JSON document on stdout, also for errors'
complete -c volctl -n "__fish_volctl_using_subcommand version" -s q -l quiet -d 'Print just the URI if exported, else the device path, else the id'
complete -c volctl -n "__fish_volctl_using_subcommand version" -s h -l help -d 'Print help'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "create" -d 'Create a volume'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "attach" -d 'Attach volumes to this VM, or to another one'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "detach" -d 'Detach volumes from this VM, or from another one'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "move" -d 'Move volumes from this VM to another one: end the export, detach here safely, attach there'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "export" -d 'Serve volumes that are attached here over NBD'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "unexport" -d 'End exports; the volumes stay attached'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "delete" -d 'Delete volumes; recoverable, except with --expunge'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "recover" -d 'Bring deleted volumes back'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "resize" -d 'Grow a volume, and wait until its device here shows the new size'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "hold" -d 'Hold volumes: nobody can detach, unexport, move, delete, revert, resize or reclaim them until they are released'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "release" -d 'Release volumes that are held, whoever holds them'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "ls" -d 'List the volumes; with -q, their ids'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "show" -d 'Show everything about one volume'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "device" -d 'Print the stable device path of volumes that are attached here'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "find" -d 'Say which volume a device is'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "exports" -d 'List the exports; with -q, their names'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "snapshot" -d 'Take, list, revert to and delete snapshots of volumes'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "ops" -d 'List the operations, newest first; with -q, their ids'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "events" -d 'Show what happened, a line each: operations, devices, exports, clients, CloudStack; with -q, the numbers'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "health" -d 'Check the daemon and what it depends on; exit code 1 where something is wrong'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "sync" -d 'Reconcile what volctld knows with CloudStack, the kernel and the exports, and say what differed'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "store" -d 'Look after the state store'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "drain" -d 'Take no new changes and clients, let the present ones end, end the exports, and say what stays attached'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "rpc" -d 'Call a method of the daemon\'s JSON-RPC interface, and print its result as JSON'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "version" -d 'Print the versions of volctl and of the daemon'
complete -c volctl -n "__fish_volctl_using_subcommand help; and not __fish_seen_subcommand_from create attach detach move export unexport delete recover resize hold release ls show device find exports snapshot ops events health sync store drain rpc version help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from snapshot" -f -a "create" -d 'Take a snapshot of a volume, or of each volume of a VM'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from snapshot" -f -a "ls" -d 'List snapshots, newest first; with -q, their ids'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from snapshot" -f -a "revert" -d 'Give a volume back what it had when a snapshot was taken, its size too'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from snapshot" -f -a "delete" -d 'Delete snapshots for ever; their volumes are not touched'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from ops" -f -a "show" -d 'Show one operation'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from ops" -f -a "wait" -d 'Wait until operations have ended'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from ops" -f -a "cancel" -d 'Cancel an operation that has not sent its change to CloudStack yet'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from ops" -f -a "retry" -d 'Let a stuck operation look again and go on from its step'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from ops" -f -a "abandon" -d 'End an operation whose outcome is not known: you take over, and its volume is free again'
complete -c volctl -n "__fish_volctl_using_subcommand help; and __fish_seen_subcommand_from store" -f -a "backup" -d 'Copy the store to a new file while it is in use'
