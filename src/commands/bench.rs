//! `ingle bench`: reads the arguments, measures, delivers the report.

use crate::bench::{compare, files, offline, quality, serve};
use crate::cli::{BenchCommand, CompareArgs};
use crate::output;

/// Runs one of the measurements.
pub(crate) fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Offline(args) => {
            files::check_places(&args.report)?;
            files::deliver(offline::run(&args)?, &args.report)
        }
        BenchCommand::Serve(args) if args.list => output::print(&serve::list()),
        BenchCommand::Serve(args) => {
            files::check_places(&args.report)?;
            files::deliver(serve::run(&args)?, &args.report)
        }
        BenchCommand::Quality(args) => {
            files::check_places(&args.report)?;
            files::deliver(quality::run(&args)?, &args.report)
        }
        BenchCommand::Compare(CompareArgs { before, after }) => {
            output::print(&compare::to_text(&files::read(&before)?, &files::read(&after)?))
        }
    }
}
