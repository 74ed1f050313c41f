//! `volctld`: a doorway to [`volctl::daemon`].

fn main() -> std::process::ExitCode {
    volctl::daemon::main()
}
