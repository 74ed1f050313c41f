//! The command line of `volctld`, and what its help and its manual page, volctld(8), tell beyond it.

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::without_empty_variables;

/// The one process that changes volumes: speaks JSON-RPC on a Unix socket, and leaves when it is idle
///
/// It alone calls CloudStack for this machine, journals every operation before it acts, finds the device of each volume
/// and serves exports over NBD. systemd starts it when its socket is touched; started again after whatever ended it, it
/// goes on with each operation from the step that was under way. volctl(1) is how it is asked.
#[derive(Parser)]
#[command(name = "volctld", version, max_term_width = 100, after_long_help = MANUAL)]
pub(super) struct Arguments {
    /// Configuration [default: /etc/volctl/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket to listen on where systemd passes none [default: /run/volctl/volctld.sock]
    #[arg(long, value_name = "PATH", env = "VOLCTL_SOCKET", hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// Directory of the state store [default: /var/lib/volctl]
    #[arg(long, value_name = "PATH")]
    pub state_dir: Option<PathBuf>,
    /// Look at all that a daemon would need, print what was found as JSON, and end
    #[arg(long, hide = true)]
    pub check: bool,
}

impl Arguments {
    /// Those of this process; ends it where they are wrong, or help was asked for.
    pub fn of_process() -> Self {
        Self::from_arg_matches(&definition().get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// The definition of the command line, from which the manual page is generated.
pub fn definition() -> clap::Command {
    without_empty_variables(Arguments::command())
}

const MANUAL: &str = "\
Signals:
  SIGTERM, SIGINT
          Stop: answer the requests that are under way, flush the exports, and exit with 0. Operations that have not ended \
          go on at the next start. Under systemd a restart then goes on with the NBD clients, see below.
  SIGHUP
          Read the configuration again. The log's filter counts from then on, everything else from the next start. A \
          configuration that cannot be read changes nothing, and the log says why.

Environment:
  CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY, CLOUDSTACK_SECRET
          Override endpoint, api_key and the secret key of the configuration.
  CREDENTIALS_DIRECTORY
          Set by systemd: its file secret holds the secret key where nothing else gives one.
  VOLCTLD_LOG
          What is logged, in place of the configuration's log: a level (off, error, warn, info, debug, trace), or \
          part=level such as volctl::nbd=debug, or several with commas between them.
  JOURNAL_STREAM
          Set by systemd: where stderr is that stream, the log goes to journald with its fields, such as OPERATION=.
  LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES
          Set by systemd: the one listening Unix socket that is handed over is taken instead of --socket; beside it comes \
          what a volctld before has stored.
  NOTIFY_SOCKET, FDSTORE, WATCHDOG_PID, WATCHDOG_USEC
          Set by systemd: it is told when volctld is ready, that it is alive, and when it leaves, and keeps what the next \
          volctld takes over.
  XDG_CONFIG_HOME, XDG_RUNTIME_DIR, XDG_STATE_HOME, HOME
          Where the files of a volctld are that an ordinary user starts.

Restart:
  systemctl restart, or an upgrade of the package
          NBD clients do not notice. Told to stop, volctld halts each of them between two requests: what is under way is \
          answered, the devices are flushed, and the connections are left in systemd's descriptor store with all that was \
          agreed on, down to the bytes of a request that has arrived in part, and last of all the mark of a clean \
          hand-over. The next volctld takes the mark out, serves each export once its device is proven by serial and size, \
          as after any start, and goes on with its clients. The listeners are in the store all the time: a client that \
          comes meanwhile waits.
  A kill or a crash
          Clients are closed, and the listeners stay. Closed, and named in the log, are also clients whose export or device \
          is not what they were told any more.
  What cannot be handed over
          Clients of a volctld without systemd, those over TLS where the kernel has none, and those of a device that has \
          failed or does not answer. While there are any, an upgrade leaves the volctld before running; volctl version and \
          volctl health then say restart pending, and for how many clients.
  systemctl stop
          systemd closes what is in the store once the service is not about to start again.

Files:
  /etc/volctl/config.toml
          The configuration, volctl.toml(5). An ordinary user's: $XDG_CONFIG_HOME/volctl/config.toml.
  /etc/volctl/secret
          The secret key, where the packages put it; nobody but volctld's user or root may read it.
  /run/volctl/volctld.sock
          Where it is asked: members of the group volctl may look, those of volctl-admin too may change. An ordinary \
          user's: $XDG_RUNTIME_DIR/volctl/volctld.sock.
  /run/volctl/nbd.sock
          Where it serves NBD, beside the addresses that the configuration names.
  /var/lib/volctl/
          The state store: the journal of operations, the exports, the events. An ordinary user's: \
          $XDG_STATE_HOME/volctl/.

Exit status:
  0
          It was told to stop, or it was idle for idle_timeout.
  1
          The state store cannot be used, or another failure; stderr says which.
  2
          The configuration or the command line is wrong.
  4
          Another process listens on its socket.

Examples:
  volctld --config ./config.toml --state-dir ./state
          Run in the foreground with a configuration and a store of your own.
  systemd-socket-activate -l /run/volctl/volctld.sock volctld
          Start it when its socket is touched, without a unit.";
