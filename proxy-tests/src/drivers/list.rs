//! The drivers, old and new: how each is found on a machine, and how its program is started.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::machine::{python_packages, repository, succeeds, target};

/// A driver, or a tool that brings one.
#[derive(Debug)]
pub struct Driver {
    /// Its name for people.
    pub name: &'static str,
    /// The same for file and branch names.
    pub key: &'static str,
    /// Cells of features that it does not have.
    pub lacks: &'static [&'static str],
    /// Debian packages that bring it; empty where it comes from elsewhere.
    pub(super) debian: &'static [&'static str],
    /// Commands that succeed where it is installed.
    there: &'static [&'static [&'static str]],
    program: fn() -> Result<Command>,
}

const NO_TRANSACTIONS: &[&str] = &["transaction", "open-transaction"];

/// All of them; those that take longest to start stand first.
pub const DRIVERS: [Driver; 11] = [
    Driver {
        name: "Go",
        key: "go",
        lacks: &[],
        debian: &["golang-go", "golang-mongodb-mongo-driver-dev"],
        there: &[
            &["go", "version"],
            &["test", "-d", "/usr/share/gocode/src/go.mongodb.org/mongo-driver"],
        ],
        program: go,
    },
    Driver {
        name: "mongosh",
        key: "mongosh",
        lacks: &[],
        debian: &[],
        there: &[&["node", "-e", "require.resolve('mongosh/package.json')"]],
        program: mongosh,
    },
    Driver {
        name: "Java",
        key: "java",
        lacks: NO_TRANSACTIONS,
        debian: &["default-jdk-headless", "libmongodb-java"],
        there: &[&["javac", "-version"], &["test", "-f", "/usr/share/java/mongo-java-driver.jar"]],
        program: java,
    },
    Driver {
        name: "Mongoose",
        key: "mongoose",
        lacks: &[],
        debian: &[],
        there: &[&["node", "-e", "require.resolve('mongoose')"]],
        program: || Ok(node("mongoose.js")),
    },
    Driver {
        name: "Node.js",
        key: "node",
        lacks: &[],
        debian: &[],
        there: &[&["node", "-e", "require.resolve('mongodb')"]],
        program: || Ok(node("mongodb.js")),
    },
    Driver {
        name: "PyMongo",
        key: "pymongo",
        lacks: &[],
        debian: &[],
        there: &[&["python3", "-c", "import pymongo"]],
        program: || Ok(python("pymongo_sync.py")),
    },
    Driver {
        name: "PyMongo, asyncio",
        key: "pymongo-async",
        lacks: &[],
        debian: &[],
        there: &[&["python3", "-c", "import pymongo"]],
        program: || Ok(python("pymongo_async.py")),
    },
    Driver {
        name: "PHP",
        key: "php",
        lacks: &[],
        debian: &["php-cli", "php-mongodb"],
        there: &[&["php", "--re", "mongodb"]],
        program: || Ok(script("php", "php/scenario.php")),
    },
    Driver {
        name: "Ruby",
        key: "ruby",
        lacks: NO_TRANSACTIONS,
        debian: &["ruby", "ruby-mongo"],
        there: &[&["ruby", "-W0", "-rmongo", "-e", "1"]],
        program: || Ok(script("ruby", "ruby/scenario.rb")),
    },
    Driver { name: "Rust", key: "rust", lacks: &["w0"], debian: &[], there: &[], program: rust },
    Driver {
        name: "C",
        key: "c",
        lacks: &[],
        debian: &["gcc", "libc6-dev", "pkg-config", "libmongoc-dev"],
        there: &[&["gcc", "--version"], &["pkg-config", "--exists", "libmongoc-1.0"]],
        program: c,
    },
];

impl Driver {
    /// What is missing on this machine, where something is.
    pub fn missing(&self) -> Option<String> {
        let works = |words: &&[&str]| {
            let mut command = Command::new(words[0]);
            succeeds(with_packages(command.args(&words[1..])))
        };
        let failing = self.there.iter().find(|words| !works(words))?;
        let remedy = match self.debian {
            [] => "`cargo verify` installs it".to_owned(),
            packages => format!("`apt-get install {}`", packages.join(" ")),
        };
        Some(format!("`{}` fails; {remedy}", failing.join(" ")))
    }

    /// Its program, built if need be, still without the URIs.
    pub(super) fn program(&self) -> Result<Command> {
        let mut command = (self.program)()?;
        with_packages(&mut command);
        command.current_dir(folder(self.key)?);
        Ok(command)
    }
}

/// The programs of the soak, with their languages: each takes how many clients it is to be.
pub fn soakers() -> Result<[(&'static str, Command); 3]> {
    let mut soakers =
        [("pymongo", python("soak.py")), ("node", node("soak.js")), ("rust", built("rust_soak")?)];
    for (_, command) in &mut soakers {
        with_packages(command);
    }
    Ok(soakers)
}

/// Where `cargo verify` puts the npm packages.
pub(super) fn node_folder() -> PathBuf {
    target().join("node")
}

/// The programs' sources.
pub(super) fn sources() -> PathBuf {
    repository().join("proxy-tests/drivers")
}

/// A folder for what a driver builds, keeps and says.
pub(super) fn folder(key: &str) -> Result<PathBuf> {
    let folder = target().join("drivers").join(key);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

fn with_packages(command: &mut Command) -> &mut Command {
    command
        .env("PYTHONPATH", python_packages())
        .env("NODE_PATH", node_folder().join("node_modules"))
        .env_remove("NODE_OPTIONS")
}

fn script(interpreter: &str, path: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(sources().join(path));
    command
}

fn python(name: &str) -> Command {
    script("python3", &format!("python/{name}"))
}

fn node(name: &str) -> Command {
    script("node", &format!("node/{name}"))
}

/// It takes arguments for files, so that a shell between takes the URIs from it.
fn mongosh() -> Result<Command> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec node \"$MONGOSH\" --nodb --quiet --norc \"$SCENARIO\""])
        .env("MONGOSH", node_folder().join("node_modules/mongosh/bin/mongosh.js"))
        .env("SCENARIO", sources().join("node/mongosh.js"))
        // Its history and settings.
        .env("HOME", folder("mongosh")?);
    Ok(command)
}

fn rust() -> Result<Command> {
    built("rust_driver")
}

/// A program that cargo builds, beside the tests.
fn built(name: &str) -> Result<Command> {
    let test = std::env::current_exe().context("find this program")?;
    let built = test.ancestors().nth(2).context("a test lies in deps/")?.join(name);
    ensure!(built.exists(), "{} is not built", built.display());
    Ok(Command::new(built))
}

/// Without modules, as Debian packages Go's libraries.
fn go() -> Result<Command> {
    let program = folder("go")?.join("scenario");
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(sources().join("go"))
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", folder("go")?.join("cache"))
        .env_remove("GOFLAGS");
    run(&mut build)?;
    Ok(Command::new(program))
}

const JAR: &str = "/usr/share/java/mongo-java-driver.jar";

fn java() -> Result<Command> {
    let classes = folder("java")?;
    let mut build = Command::new("javac");
    let source = sources().join("java/Scenario.java");
    run(build.arg("-d").arg(&classes).args(["-cp", JAR]).arg(source))?;
    let mut command = Command::new("java");
    command.arg("-cp").arg(format!("{}:{JAR}", classes.display())).arg("Scenario");
    Ok(command)
}

fn c() -> Result<Command> {
    let program = folder("c")?.join("scenario");
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libmongoc-1.0"]).output();
    let flags = String::from_utf8(flags.context("start pkg-config")?.stdout)?;
    let mut build = Command::new("gcc");
    build.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
    run(build.arg(sources().join("c/scenario.c")).args(flags.split_whitespace()))?;
    Ok(Command::new(program))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(())
}
