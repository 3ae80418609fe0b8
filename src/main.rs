//! The binary `argon`: parse, start logging, run.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use argon::app::config::{self, Config, LogFormat};
use argon::app::settings::Flags;
use argon::branch::{Damage, Rebuilt};
use argon::compute::docker::PullProgress;
use argon::compute::mongod::{Mongod, Progress, Search};
use argon_admin::cli::{self, ConnectionArgs, EXIT_CODES};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tracing::warn;
use tracing_subscriber::EnvFilter;

/// Git-style branches for MongoDB: each with an address of its own, asleep until it is used
#[derive(Parser)]
#[command(name = "argon", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<Flags>),
    /// Mend what can only be mended while no server runs
    Repair(Box<Repair>),
    /// The mongod that branches run on
    #[command(subcommand)]
    Mongod(MongodCommand),
    #[command(flatten)]
    Admin(cli::Command),
}

/// Makes a lost catalog again. It takes the settings of `argon serve`, as it looks into the same
/// data directory and the same store.
#[derive(Args)]
struct Repair {
    /// Fill an empty catalog with the projects, branches and versions that are in the store
    #[arg(long, required = true)]
    from_store: bool,
    /// Leave out what is damaged, instead of changing nothing
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Clone, Copy, Subcommand)]
enum MongodCommand {
    /// Print the path of the mongod that would be used
    Which,
    /// The same, and download one into the cache if there is none
    Install,
}

/// An error for people: what, why, and the next step.
struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    code: u8,
}

fn main() -> ExitCode {
    // Before any thread is there: the environment is shared by all of them.
    let dotenv = load_dotenv(Path::new(".env"));
    let arguments = Arguments::parse();
    let done = dotenv.and_then(|()| match &arguments.command {
        Command::Serve(flags) => serve(flags),
        Command::Repair(repair) => mend(repair, arguments.connection.json),
        Command::Mongod(command) => mongod(*command, arguments.connection.json),
        Command::Admin(command) => Ok(cli::run(command, &arguments.connection)),
    });
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {:#}", failure.error);
            if let Some(hint) = failure.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Adds to the environment what a `.env` file in the working directory says; what is set there
/// already stays as it is.
fn load_dotenv(path: &Path) -> Result<(), Failure> {
    match dotenvy::from_path(path) {
        Err(dotenvy::Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Failure {
            error: anyhow::Error::new(e).context(format!("read `{}`", path.display())),
            hint: Some("each of its lines is NAME=VALUE or a comment with `#`".into()),
            code: 2,
        }),
        Ok(()) => Ok(()),
    }
}

fn configuration(flags: &Flags) -> Result<Config, Failure> {
    config::load(flags).map_err(|e| {
        let hint = Some(e.hint().to_owned());
        Failure { error: e.into(), hint, code: 2 }
    })
}

fn serve(flags: &Flags) -> Result<ExitCode, Failure> {
    let config = configuration(flags)?;
    start_logging(&config);
    for warning in config.warnings() {
        warn!("{warning}");
    }
    let bar = ProgressBar::new(0);
    let mut tell = |progress| match progress {
        argon::app::Progress::Mongod(progress) => show(&bar, progress),
        argon::app::Progress::Image { name, progress } => show_pull(&bar, &name, &progress),
        argon::app::Progress::Done => bar.finish_and_clear(),
    };
    let served = argon::app::serve(config, &mut tell);
    served.map(|()| ExitCode::SUCCESS).map_err(|e| {
        let hint = e.hint();
        Failure { error: e.into(), hint, code: 1 }
    })
}

fn mend(repair: &Repair, json: bool) -> Result<ExitCode, Failure> {
    let config = configuration(&repair.flags)?;
    let damage = if repair.keep_going { Damage::Skip } else { Damage::Refuse };
    let rebuilt = argon::app::repair(&config, damage).map_err(|e| {
        let hint = e.hint();
        Failure { error: e.into(), hint, code: 1 }
    })?;
    let Rebuilt { projects, branches, deleted, versions, pinned, unsaved, notes } = rebuilt;
    for note in &notes {
        eprintln!("note: {note}");
    }
    if json {
        let found = serde_json::json!({
            "projects": projects, "branches": branches, "deleted_branches": deleted,
            "versions": versions, "pinned_versions": pinned, "unsaved": unsaved, "notes": notes,
        });
        println!("{found:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "rebuilt the catalog: projects {projects}, branches {branches}, deleted branches {deleted}, \
         versions {versions}, pinned versions {pinned}"
    );
    if !unsaved.is_empty() {
        println!("with unsaved writes on this disk: {}", unsaved.join(", "));
    }
    eprintln!("next: `argon serve`; branches' own ports and sockets are to be opened again");
    Ok(ExitCode::SUCCESS)
}

fn start_logging(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        // It would say so on stderr, and panic where nobody reads that any more.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(&config.log));
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn mongod(command: MongodCommand, json: bool) -> Result<ExitCode, Failure> {
    let fetch = match command {
        MongodCommand::Which => Fetch::Never,
        MongodCommand::Install => Fetch::IfThereIsNone,
    };
    let Mongod { path, version, source } = find_mongod(fetch)?;
    if json {
        let source = source.to_string();
        println!("{:#}", serde_json::json!({ "path": path, "version": version, "source": source }));
    } else {
        println!("{}", path.display());
        eprintln!("mongod {version}, found by way of: {source}");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Never,
    IfThereIsNone,
}

fn find_mongod(fetch: Fetch) -> Result<Mongod, Failure> {
    let failure = |e: argon::compute::mongod::MongodError| {
        let hint = Some(e.hint());
        Failure { error: e.into(), hint, code: 1 }
    };
    let search = Search::of_this_process(None).map_err(failure)?;
    match (search.find().map_err(failure)?, fetch) {
        (Some(found), _) => Ok(found),
        (None, Fetch::Never) => Err(Failure {
            error: anyhow::anyhow!("there is no mongod: none in PATH and none in Argon's cache"),
            hint: Some("`argon mongod install` downloads one; or set ARGON_MONGOD".into()),
            code: 3,
        }),
        (None, Fetch::IfThereIsNone) => {
            let bar = ProgressBar::new(0);
            search.find_or_fetch(&mut |progress| show(&bar, progress)).map_err(failure)
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is written correctly")
}

/// On a terminal a bar; else nothing but a line at the start, for logs.
fn show_pull(bar: &ProgressBar, image: &str, progress: &PullProgress) {
    if bar.length() == Some(0) {
        bar.suspend(|| eprintln!("the engine has no image {image}: pulling it"));
        bar.set_style(style("image {bar:30} {bytes} of {total_bytes}"));
    }
    bar.set_length(progress.of.max(1));
    bar.set_position(progress.bytes);
    bar.tick();
}

/// On a terminal a bar; else nothing but a line at the start, for logs.
fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Waiting => bar.set_message("another process downloads a mongod, waiting for it"),
        Progress::Downloading { bytes, of } => {
            if bar.length() != Some(of) {
                bar.suspend(|| {
                    eprintln!("there is no mongod here: downloading one into the cache")
                });
                bar.set_style(style("mongod {bar:30} {bytes} of {total_bytes}"));
                bar.set_length(of);
            }
            bar.set_position(bytes);
        }
        Progress::Unpacking => {
            bar.set_style(style("{spinner} {msg}"));
            bar.set_message("checking and unpacking the mongod");
        }
    }
    bar.tick();
}
