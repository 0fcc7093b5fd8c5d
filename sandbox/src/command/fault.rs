//! `fault`: what the API server shall do wrong.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{ANSWER_DEADLINE, ask, parse_duration};
use crate::api::faults::{Action, Ending, Fault, Filter, Listed};
use crate::control::{Answer, Request, client};

#[derive(Debug, Subcommand)]
pub(super) enum FaultCommand {
    /// Set a fault; several act in the order in which they were set
    #[command(after_help = "\
Examples:
  meltemi-sandbox fault add --verb list,watch --resource pods --status 410 --count 1
  meltemi-sandbox fault add --resource leases --status 500 --probability 0.3
  meltemi-sandbox fault add --user system:serviceaccount:istio-system:istiod --delay 2s
  meltemi-sandbox fault add --drop-watch 5s --ending gone")]
    Add(AddArgs),
    /// Show the faults, and how often each has been applied
    List,
    /// Remove a fault, or all
    Clear {
        /// Its number
        id: Option<u64>,
    },
    /// End the watches that clients have open now
    DropWatches {
        #[command(flatten)]
        filter: FilterArgs,
        /// How they end
        #[arg(long, value_enum, default_value_t = EndingArg::Close)]
        ending: EndingArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    action: ActionArgs,
    /// How likely it is for each request
    #[arg(long, default_value_t = 1.0)]
    probability: f64,
    /// How often at most
    #[arg(long)]
    count: Option<u64>,
    /// Seconds in `Retry-After`, with --status
    #[arg(long, requires = "status", value_name = "SECONDS")]
    retry_after: Option<u32>,
    /// How a watch ends, with --drop-watch
    #[arg(long, requires = "drop_watch", value_enum, default_value_t = EndingArg::Close)]
    ending: EndingArg,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ActionArgs {
    /// Refuse with this status
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// Wait before anything else
    #[arg(long, value_parser = parse_duration)]
    delay: Option<Duration>,
    /// End watches so long after they began
    #[arg(long, value_name = "AFTER", value_parser = parse_duration)]
    drop_watch: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Verbs, such as get, list, watch, create, update, patch, delete [default: all]
    #[arg(long = "verb", value_delimiter = ',')]
    verbs: Vec<String>,
    /// Resources, such as pods or pods/status [default: all]
    #[arg(long = "resource", value_delimiter = ',')]
    resources: Vec<String>,
    /// API group; "" is the core group [default: all]
    #[arg(long)]
    group: Option<String>,
    /// Namespace [default: all]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Name of the object [default: all]
    #[arg(long)]
    name: Option<String>,
    /// Caller [default: all but the sandbox itself]
    #[arg(long)]
    user: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum EndingArg {
    /// In order
    Close,
    /// With an error that says 410
    Gone,
    /// In the middle
    Reset,
}

/// Runs a command.
pub(super) fn run(dir: &Path, command: FaultCommand) -> anyhow::Result<u8> {
    match command {
        FaultCommand::Add(args) => ask(dir, &Request::FaultAdd { rule: args.into() }),
        FaultCommand::List => list(dir),
        FaultCommand::Clear { id } => ask(dir, &Request::FaultClear { id }),
        FaultCommand::DropWatches { filter, ending } => {
            ask(dir, &Request::DropWatches { filter: filter.into(), ending: ending.into() })
        }
    }
}

fn list(dir: &Path) -> anyhow::Result<u8> {
    let mut found = Vec::new();
    let sentence = client::call(dir, &Request::FaultList, Some(ANSWER_DEADLINE), |answer| {
        if let Answer::Faults(faults) = answer {
            found = faults;
        }
    })?;
    let mut out = io::stdout().lock();
    for fault in &found {
        writeln!(out, "{}", describe(fault))?;
    }
    if found.is_empty() {
        writeln!(out, "no faults are set")?;
    }
    writeln!(out, "{sentence}")?;
    Ok(0)
}

fn describe(listed: &Listed) -> String {
    let Listed { id, fault, applied } = listed;
    let filter = &fault.filter;
    let any = |list: &[String], what: &str| if list.is_empty() { format!("any {what}") } else { list.join(",") };
    let mut text = format!("{id}: {} of {}", any(&filter.verbs, "verb"), any(&filter.resources, "resource"));
    let single =
        [("group", &filter.group), ("namespace", &filter.namespace), ("name", &filter.name), ("user", &filter.user)];
    for (what, value) in single {
        if let Some(value) = value {
            text.push_str(&format!(", {what} {value:?}"));
        }
    }
    match &fault.action {
        Action::Status { code, .. } => text.push_str(&format!(": status {code}")),
        Action::Delay { ms } => text.push_str(&format!(": {ms} ms late")),
        Action::DropWatch { after_ms, ending } => {
            text.push_str(&format!(": watch ends after {after_ms} ms ({ending:?})"))
        }
    }
    if fault.probability < 1.0 {
        text.push_str(&format!(", probability {}", fault.probability));
    }
    match fault.count {
        Some(count) => format!("{text}; applied {applied} of {count} times"),
        None => format!("{text}; applied {applied} times"),
    }
}

impl From<AddArgs> for Fault {
    fn from(args: AddArgs) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let ActionArgs { status, delay, drop_watch } = args.action;
        let action = match (status, delay, drop_watch) {
            (Some(code), _, _) => Action::Status { code, retry_after_seconds: args.retry_after },
            (None, Some(delay), _) => Action::Delay { ms: ms(delay) },
            (None, None, after) => {
                Action::DropWatch { after_ms: after.map(ms).unwrap_or_default(), ending: args.ending.into() }
            }
        };
        Self { filter: args.filter.into(), probability: args.probability, count: args.count, action }
    }
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { verbs, resources, group, namespace, name, user } = args;
        Self { verbs, group, resources, namespace, name, user }
    }
}

impl From<EndingArg> for Ending {
    fn from(arg: EndingArg) -> Self {
        match arg {
            EndingArg::Close => Self::Close,
            EndingArg::Gone => Self::Gone,
            EndingArg::Reset => Self::Reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: FaultCommand,
    }

    fn added(words: &[&str]) -> Result<Fault, clap::Error> {
        let words = ["fault", "add"].iter().chain(words);
        match Line::try_parse_from(words)?.command {
            FaultCommand::Add(args) => Ok(args.into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_line_becomes_a_rule() {
        let fault =
            added(&["--verb", "list,watch", "--resource", "pods", "--status", "429", "--retry-after", "2"]).unwrap();
        assert_eq!(fault.filter.verbs, ["list", "watch"]);
        assert_eq!(fault.action, Action::Status { code: 429, retry_after_seconds: Some(2) });
        let cut = added(&["--drop-watch", "5s", "--ending", "gone", "--count", "1"]).unwrap();
        assert_eq!(cut.action, Action::DropWatch { after_ms: 5_000, ending: Ending::Gone });
        let listed = Listed { id: 3, fault: cut, applied: 1 };
        assert_eq!(
            describe(&listed),
            "3: any verb of any resource: watch ends after 5000 ms (Gone); applied 1 of 1 times"
        );
        assert!(added(&["--verb", "list"]).is_err(), "an action is needed");
        assert!(added(&["--status", "500", "--delay", "1s"]).is_err(), "one action only");
    }
}
