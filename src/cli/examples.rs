//! Lines that show how each command is used, for its `--help` and its manual page.

use clap::Command;

/// A line to type, and what it does.
type Example = (&'static str, &'static str);

/// The examples of each command by its words after `volctl`.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            (
                "volctl create data1 --size 10G --attach",
                "Create a volume, attach it here, and print which disk it became",
            ),
            ("volctl export data1", "Serve it over NBD, and print the URI"),
            ("volctl ls", "See the volumes, where each is attached, and which device and export each has here"),
            ("volctl detach data1", "End the export, flush, prove that nothing uses the disk, and detach it"),
            ("volctl --sandbox create data1 --size 1G --export", "Try it without any cloud, as any user"),
        ],
    ),
    (
        "create",
        &[
            ("volctl create data1 --size 10G", "Create a volume of 10 GiB; it takes storage when it is first attached"),
            (
                "volctl create data1 data2 --offering gold --export",
                "Create two of a fixed size, and serve both over NBD",
            ),
            (
                "volctl -q create data1 --size 10G --attach --exists-ok",
                "Print just the device, also where data1 was made before",
            ),
        ],
    ),
    (
        "attach",
        &[
            ("volctl attach data1 data2 --export", "Attach two volumes here and serve both over NBD"),
            ("volctl attach data1 --vm worker --no-wait", "Attach it to another VM, and print the operation at once"),
            ("volctl attach system1 --vm worker --root", "Make it the root disk of a stopped VM that has none"),
        ],
    ),
    (
        "detach",
        &[
            ("volctl detach data1 --drain 5m", "Let the NBD clients finish for up to 5 minutes, then detach"),
            ("volctl detach --all --yes", "Detach all of this VM's volumes but its root disk"),
            ("volctl detach data1 --from worker", "Detach it from another VM"),
        ],
    ),
    (
        "move",
        &[
            ("volctl move data1 --to worker", "Detach it here and attach it there, as one operation"),
            (
                "volctl move system1 --to worker --root --swap-root",
                "Make it that stopped VM's root disk; the present one is kept",
            ),
        ],
    ),
    (
        "reclaim",
        &[
            (
                "volctl reclaim data1 --from worker",
                "Stop that VM, and bring its volume back here with its former export",
            ),
            (
                "volctl reclaim data1 --from test7 --destroy-vm test7",
                "End a test fail-over: destroy the VM once the disk is here",
            ),
        ],
    ),
    (
        "export",
        &[
            ("volctl export data1", "Serve it as vol-<volume id>, and print the URI"),
            ("volctl export data1 --name backup --read-only", "Serve it under a name of your own, without writes"),
            ("volctl export data1 --tls required --client CN=backup1", "Serve it to one client's certificate"),
            ("volctl export data1 --client CN=backup2", "Serve it to another from now on, and cut the one before off"),
        ],
    ),
    (
        "unexport",
        &[
            ("volctl unexport data1", "End the export of a volume; refused while a client is connected"),
            ("volctl unexport backup --drain 10m", "End the export of that name once its clients have gone"),
        ],
    ),
    (
        "delete",
        &[
            ("volctl delete data1", "Delete a volume so that 'volctl recover' can bring it back"),
            ("volctl delete data1 --expunge --yes", "Delete it for ever, without a question"),
        ],
    ),
    ("recover", &[("volctl recover data1", "Bring a deleted volume back while CloudStack still keeps it")]),
    ("resize", &[("volctl resize data1 20G", "Grow it to 20 GiB, and return when its device here shows that")]),
    (
        "hold",
        &[(
            "volctl hold data1 --note \"restore until Friday, ask Ann\"",
            "Let nobody detach, move or delete it until it is released",
        )],
    ),
    ("release", &[("volctl release data1", "Let it be changed again, whoever held it")]),
    (
        "ls",
        &[
            ("volctl ls", "List the volumes"),
            ("volctl ls --max-age 0s --json", "Ask CloudStack now, and print one JSON document"),
        ],
    ),
    (
        "show",
        &[
            ("volctl show data1", "Show everything about the volume of that name"),
            ("volctl show 4b7a33", "The same by the first 6 or more characters of its id"),
        ],
    ),
    (
        "device",
        &[
            ("volctl device data1", "Print its stable path, /dev/disk/by-id/virtio-..."),
            ("volctl device data1 --wait 30s", "Wait for the disk to appear first"),
        ],
    ),
    ("find", &[("volctl find /dev/vdb1", "Say which volume that disk or partition is")]),
    (
        "why",
        &[("volctl why data1 --since 2h", "Tell what happened to it in the last two hours, and what it waits for")],
    ),
    ("exports", &[("volctl exports", "List the exports with their URIs and clients")]),
    ("exports kick", &[("volctl exports kick backup --client 192.0.2.7", "Send the clients at that address away")]),
    ("exports check", &[("volctl exports check", "Exit with 1 where an export is not as it should be")]),
    (
        "exports prune",
        &[(
            "volctl exports prune --idle-for 7d --dry-run",
            "Say which exports would end for having had no client for a week",
        )],
    ),
    ("vm", &[("volctl vm show", "Show this VM and its volumes")]),
    ("vm ls", &[("volctl vm ls", "List the VMs that CloudStack shows this key")]),
    ("vm show", &[("volctl vm show worker", "Show another VM and its volumes in device order")]),
    ("snapshot", &[("volctl snapshot ls --volume data1", "List the snapshots of a volume")]),
    (
        "snapshot create",
        &[
            ("volctl snapshot create data1 --tag run=7", "Take a snapshot, and wait until it is backed up"),
            ("volctl snapshot create --vm worker", "Take one of each volume of a VM, one after another"),
        ],
    ),
    (
        "snapshot ls",
        &[("volctl snapshot ls --vm worker --tag run=7", "List those of a VM's volumes that have this tag")],
    ),
    (
        "snapshot revert",
        &[(
            "volctl snapshot revert before-upgrade",
            "Give its volume back what it had then; what was written since is lost",
        )],
    ),
    ("snapshot delete", &[("volctl snapshot delete before-upgrade --yes", "Delete it for ever, without a question")]),
    (
        "ops",
        &[
            ("volctl ops", "List the latest operations"),
            ("volctl ops --status stuck --since 7d", "List those of the last week that need a person"),
        ],
    ),
    ("ops show", &[("volctl ops show 1f0c2a", "Show its step, its times and who asked for it")]),
    ("ops wait", &[("volctl ops wait 1f0c2a --timeout 10m", "Wait for its end; the exit code says how it ended")]),
    ("ops watch", &[("volctl ops watch", "Watch what is under way")]),
    ("ops cancel", &[("volctl ops cancel 1f0c2a", "Take back what has sent nothing yet")]),
    ("ops retry", &[("volctl ops retry 1f0c2a", "Let it look again after its cause is mended")]),
    ("ops abandon", &[("volctl ops abandon 1f0c2a --reason \"detached by hand\"", "End it, and free its volume")]),
    (
        "events",
        &[
            ("volctl events", "Show everything that is kept"),
            ("volctl events --follow --after 1042 --json", "Go on after event 1042, and then live, for a program"),
        ],
    ),
    ("health", &[("volctl health", "Check each part; for monitoring, exit code 1 is an alarm")]),
    (
        "metrics",
        &[
            ("volctl metrics", "Print the metrics as OpenMetrics text"),
            (
                "volctl metrics --textfile /var/lib/prometheus/node-exporter/volctl.prom",
                "Write them where node_exporter's textfile collector reads",
            ),
        ],
    ),
    ("tls", &[("volctl tls init", "Make certificates for this machine's NBD server and one client")]),
    (
        "tls init",
        &[
            (
                "volctl tls init --name nbd.example --client backup1",
                "Make an authority, the server's certificate and that of one client",
            ),
            ("volctl tls init --client backup2", "Add a client of the same authority"),
        ],
    ),
    ("sync", &[("volctl sync", "Look at CloudStack, the kernel and the exports now, and say what differed")]),
    ("store", &[("volctl store backup /var/backups/volctl.db", "Copy the journal while the daemon works with it")]),
    (
        "store backup",
        &[("volctl store backup /var/backups/volctl.db", "Copy the store to a file that is not there yet")],
    ),
    (
        "drain",
        &[
            ("volctl drain --dry-run", "Before maintenance: say what is in the way"),
            ("volctl drain --detach --timeout 30m", "End everything within half an hour, the attachments too"),
            ("volctl drain --end", "Take changes and clients again"),
        ],
    ),
    ("config", &[("volctl config check", "Look at the configuration before the daemon is restarted")]),
    ("config check", &[("volctl config check ./config.toml", "Say everything that is wrong in that file")]),
    (
        "config import",
        &[(
            "volctl config import --profile production --to ./config.toml",
            "Write that profile of cmk as a configuration",
        )],
    ),
    (
        "rpc",
        &[
            ("volctl rpc volume.get '{\"volume\": \"data1\"}'", "Call a method with its parameters"),
            ("volctl rpc rpc.discover > openrpc.json", "Save the description of all methods"),
        ],
    ),
    ("version", &[("volctl version", "Print both versions, and whether the daemon waits for a restart")]),
];

/// Gives a command and those below it their examples.
pub fn add(command: Command) -> Command {
    add_below(command, "")
}

fn add_below(command: Command, words: &str) -> Command {
    let command = command.mut_subcommands(|below| {
        let words = format!("{words} {}", below.get_name());
        add_below(below, words.trim_start())
    });
    match EXAMPLES.iter().find(|(of, _)| *of == words) {
        Some((_, examples)) => command.after_long_help(section(examples)),
        None => command,
    }
}

fn section(examples: &[Example]) -> String {
    examples
        .iter()
        .fold("Examples:".to_owned(), |text, (line, meaning)| format!("{text}\n  {line}\n          {meaning}"))
}
