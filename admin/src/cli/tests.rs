//! What the parser takes, and what subcommands show for a server's answers.

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::client::testing::{answer, answering};

#[derive(Parser, Debug)]
#[command(name = "argon", after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: Command,
}

#[test]
fn the_parser_is_sound() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn command_lines_are_taken_or_refused() {
    const ID: &str = "01arz3ndektsv4rrffq69g5fav";
    let create = "branch create x";
    let travel = "branch time-travel x --from-branch dev";
    for (line, legal) in [
        ("project create shop", true),
        ("project list --json", true),
        ("project delete", false),
        ("project retention shop", true),
        ("project retention shop --keep-last 10 --keep-for 30d --keep-deleted forever", true),
        ("project retention shop --keep-last all --dry-run", true),
        ("project retention shop --periodic-all 1h --periodic-minutes 1d", true),
        ("project retention shop --periodic-hours forever --dry-run", true),
        ("project retention shop --periodic-all never", false),
        ("project retention shop --keep-last 0", false),
        ("project retention shop --keep-for never", false),
        ("--json branch list --deleted --project shop", true),
        (create, true),
        (&format!("{create} --from dev"), true),
        (&format!("{create} --from dev@{ID} --idle-timeout 30s"), true),
        (&format!("{create} --from dev@2026-01-31T12:00:00Z"), true),
        (&format!("{create} --from dev@before-noon"), true),
        (&format!("{create} --from dev@2026-01-31"), false),
        (&format!("{create} --empty --idle-timeout never"), true),
        (&format!("{create} --empty --from dev"), false),
        (&format!("{create} --idle-timeout soon"), false),
        (travel, false),
        (&format!("{travel} --version-id {ID}"), true),
        (&format!("{travel} --timestamp 2026-01-31T12:00:00.000Z"), true),
        (&format!("{travel} --label v1.2"), true),
        (&format!("{travel} --label {ID}"), false),
        (&format!("{travel} --label v1.2 --version-id {ID}"), false),
        (&format!("{travel} --timestamp {ID}"), false),
        (&format!("{travel} --version-id 2026-01-31T12:00:00Z"), false),
        (&format!("{travel} --version-id {ID} --timestamp 2026-01-31T12:00:00Z"), false),
        ("branch time-travel x --timestamp 2026-01-31T12:00:00Z", false),
        (&format!("{create} --snapshot-every 5s"), true),
        (&format!("{create} --snapshot-every 500ms"), false),
        (&format!("{travel} --label v1.2 --snapshot-every off"), true),
        ("branch set dev", false),
        ("branch set dev --idle-timeout default", true),
        ("branch set dev --idle-timeout never --snapshot-every 1m", true),
        ("branch set dev --snapshot-every off --project shop", true),
        ("branch set dev --snapshot-every soon", false),
        (&format!("{create} --keep-warm 10m"), true),
        (&format!("{create} --keep-warm never"), false),
        (&format!("{travel} --label v1.2 --keep-warm off"), true),
        ("branch set dev --keep-warm default", true),
        ("branch set dev --keep-warm 0s", false),
        ("branch suspend dev --wait --project shop", true),
        ("branch recover dev", false),
        ("branch recover dev --last-version", true),
        ("branch recover dev --salvage --project shop", true),
        ("branch recover dev --salvage --last-version", false),
        ("branch list-versions dev", true),
        ("branch snapshot dev", true),
        ("branch snapshot dev --label before-the-sale --project shop", true),
        (&format!("branch snapshot dev --label {ID}"), false),
        ("branch snapshot dev --label 2026-01-31T12:00:00Z", false),
        (&format!("branch pin {ID}"), true),
        ("branch unpin", false),
        ("branch dump dev --out -", true),
        ("branch dump dev", false),
        ("connect dev --server 127.0.0.1:1", true),
        ("connect dev --server https://host", false),
        ("operation show x --wait", true),
        ("status", true),
        ("gc --dry-run --json", true),
        ("gc dev", false),
        ("scrub", true),
        ("", false),
    ] {
        let words = std::iter::once("argon").chain(line.split_whitespace());
        let parsed = Cli::try_parse_from(words);
        assert_eq!(parsed.is_ok(), legal, "{line}: {parsed:?}");
    }
}

/// Runs a command line against a server that gives these answers in turn.
fn execute(line: &str, answers: &[Value]) -> (Result<Answer, error::CliError>, Vec<String>) {
    let ok = |value: &Value| answer("200 OK", "application/json", &value.to_string());
    let (client, serving) = answering(answers.iter().map(ok).collect());
    let words = ["argon"].into_iter().chain(line.split_whitespace());
    let done = Cli::try_parse_from(words).unwrap().command.execute(&Session::of(client));
    let requests = serving.join().unwrap();
    (done, requests.iter().map(|r| r.lines().next().unwrap().replace(" HTTP/1.1", "")).collect())
}

fn branch(name: &str) -> Value {
    json!({
        "id": "b1", "project": "shop", "name": name, "state": "running", "head_version": "v1",
        "origin": {"branch": "main", "version": "v0"}, "idle_timeout": {"after": {"ms": 30_000}},
        "snapshot_every": "off", "keep_warm": {"for": {"ms": 600_000}}, "frozen": true,
        "created_at": "long ago", "uri": format!("mongodb://127.0.0.1:1/?appName=argon.shop/{name}"),
        "clients": 2, "in_flight": 0, "size_bytes": 1536, "epoch": 3
    })
}

fn operation(result: Value) -> Value {
    json!({
        "id": "op1", "kind": "create_branch", "subject": "shop/dev", "status": "succeeded",
        "result": result, "started_at": "2026-01-31T12:00:00.000Z",
        "ended_at": "2026-01-31T12:00:01.250Z"
    })
}

fn projects(names: &[&str]) -> Value {
    let project = |name| json!({"id": "p", "name": name, "created_at": "long ago"});
    json!({ "items": names.iter().map(project).collect::<Vec<_>>() })
}

#[test]
fn connect_prints_the_uri_and_nothing_else() {
    let (done, requests) = execute("connect dev", &[projects(&["shop"]), branch("dev")]);
    let done = done.unwrap();
    assert_eq!(done.text(Format::Human), "mongodb://127.0.0.1:1/?appName=argon.shop/dev\n");
    assert!(done.text(Format::Json).contains(r#""uri": "mongodb://127.0.0.1:1/"#));
    assert_eq!(requests, ["GET /v1/projects", "GET /v1/projects/shop/branches/dev"]);
}

#[test]
fn the_project_must_be_named_unless_there_is_one() {
    let (done, _) = execute("connect dev", &[projects(&[])]);
    assert!(matches!(done, Err(error::CliError::NoProject)));
    let (done, _) = execute("connect dev", &[projects(&["blog", "shop"])]);
    let error = done.unwrap_err().to_string();
    assert_eq!(error, "which project is meant? there are blog, shop");
    let (done, requests) = execute("connect dev --project blog", &[branch("dev")]);
    assert!(done.is_ok());
    assert_eq!(requests, ["GET /v1/projects/blog/branches/dev"]);
}

#[test]
fn a_list_is_a_table_or_an_array() {
    let list = json!({ "items": [branch("dev"), branch("feature")] });
    let (done, requests) = execute("branch list --project shop", &[list]);
    let done = done.unwrap();
    assert_eq!(
        done.text(Format::Human),
        "NAME     STATE            SIZE     CLIENTS  IDLE  WARM  CREATED   FROM\n\
         dev      running, frozen  1.5 KiB  2        30s   10m   long ago  main@v0\n\
         feature  running, frozen  1.5 KiB  2        30s   10m   long ago  main@v0\n"
    );
    let machine: Value = serde_json::from_str(&done.text(Format::Json)).unwrap();
    assert_eq!(machine[1]["name"], "feature");
    assert_eq!(requests, ["GET /v1/projects/shop/branches"]);
    let (done, requests) = execute("branch list --deleted --project shop", &[projects(&[])]);
    assert_eq!(done.unwrap().text(Format::Human), "");
    assert_eq!(requests, ["GET /v1/projects/shop/branches?deleted=only"]);
}

#[test]
fn a_step_shows_what_the_operation_came_to() {
    for (line, request, text) in [
        ("create dev", "POST /v1/projects/shop/branches", "created"),
        ("suspend dev", "POST /v1/projects/shop/branches/dev/suspend", "suspended"),
        ("resume dev", "POST /v1/projects/shop/branches/dev/resume", "resumed"),
        ("delete dev", "DELETE /v1/projects/shop/branches/dev", "deleted"),
        ("undelete dev", "POST /v1/projects/shop/branches/dev/undelete", "brought back"),
        ("purge dev", "POST /v1/projects/shop/branches/dev/purge", "purged"),
    ] {
        let answer = operation(json!({ "branch": branch("dev") }));
        let (done, requests) = execute(&format!("branch {line} --project shop"), &[answer]);
        assert_eq!(requests, [request]);
        let done = done.unwrap();
        assert_eq!(done.text(Format::Human), format!("{text} branch shop/dev in 1.2 s\n"));
        let machine: Value = serde_json::from_str(&done.text(Format::Json)).unwrap();
        assert_eq!(machine, branch("dev"));
    }
    let (done, _) = execute("branch suspend dev --project shop", &[operation(Value::Null)]);
    assert!(done.is_err(), "an operation without its branch is no success");
}

#[test]
fn time_travel_names_the_version_or_the_time() {
    const ID: &str = "01arz3ndektsv4rrffq69g5fav";
    let answer = || {
        answer("200 OK", "application/json", &operation(json!({"branch": branch("x")})).to_string())
    };
    for (at, expected) in [
        (format!("--version-id {ID}"), json!({"version": ID})),
        ("--label v1.2".to_owned(), json!({"label": "v1.2"})),
        ("--timestamp 2026-01-31T12:00:00Z".to_owned(), json!({"time": "2026-01-31T12:00:00Z"})),
    ] {
        let (client, serving) = answering(vec![answer()]);
        let line = format!("argon branch time-travel x --from-branch dev {at} --project shop");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        cli.command.execute(&Session::of(client)).unwrap();
        let requests = serving.join().unwrap();
        let body: Value = serde_json::from_str(requests[0].split_once("\r\n").unwrap().1).unwrap();
        assert_eq!(
            body,
            json!({"name": "x", "source": {"branch": {"branch": "dev", "at": expected}}})
        );
    }
}

fn version(label: Option<&str>) -> Value {
    json!({
        "id": "v2", "created_at": "long ago", "parent": "v1", "cause": "snapshot", "pinned": true,
        "label": label, "size_bytes": 2048, "new_bytes": 0, "stored_bytes": 0,
        "mongod_version": "6.0.5"
    })
}

#[test]
fn versions_are_made_kept_and_listed() {
    for (line, request, text) in [
        (
            "snapshot dev --label sale --project shop",
            "POST /v1/projects/shop/branches/dev/snapshot",
            "made version v2 (sale) of branch shop/dev in 1.2 s\n",
        ),
        ("pin v2", "POST /v1/versions/v2/pin", "pinned version v2\n"),
        ("unpin v2", "DELETE /v1/versions/v2/pin", "unpinned version v2\n"),
    ] {
        let answer = operation(json!({ "version": version(Some("sale")) }));
        let (done, requests) = execute(&format!("branch {line}"), &[answer]);
        assert_eq!(requests, [request]);
        assert_eq!(done.unwrap().text(Format::Human), text);
    }
    let list = json!({ "items": [version(Some("sale")), version(None)] });
    let (done, _) = execute("branch list-versions dev --project shop", &[list]);
    assert_eq!(
        done.unwrap().text(Format::Human),
        "VERSION  CREATED   AGE       CAUSE     SIZE     NEW  STORED  PARENT  PIN     LABEL\n\
         v2       long ago  long ago  snapshot  2.0 KiB  0 B  0 B     v1      pinned  sale\n\
         v2       long ago  long ago  snapshot  2.0 KiB  0 B  0 B     v1      pinned\n"
    );
}

#[test]
fn the_rules_of_a_project_are_shown_changed_in_part_and_tried() {
    let project = |last: u32| {
        json!({
            "id": "p", "name": "shop", "created_at": "long ago",
            "retention": {"keep_last": last, "keep_for_ms": 2_592_000_000_u64}
        })
    };
    let list = json!({ "items": [project(100)] });
    let text = |last| {
        format!(
            "project       shop\nkeep last     {last}\nkeep for      30d\nkeep deleted  forever\n\
             periodic      all for 1h, one a minute for 1d, one an hour for 30d, then one a day\n"
        )
    };
    let (done, requests) = execute("project retention shop", std::slice::from_ref(&list));
    assert_eq!(done.unwrap().text(Format::Human), text(100));
    assert_eq!(requests, ["GET /v1/projects"]);

    let ok = |value: &Value| answer("200 OK", "application/json", &value.to_string());
    let (client, serving) =
        answering(vec![ok(&list), ok(&operation(json!({ "project": project(7) })))]);
    let line = "argon project retention shop --keep-last 7";
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    let done = cli.command.execute(&Session::of(client)).unwrap();
    assert_eq!(done.text(Format::Human), text(7));
    let requests = serving.join().unwrap();
    assert!(requests[1].starts_with("PUT /v1/projects/shop/retention "));
    let body: Value = serde_json::from_str(requests[1].split_once("\r\n").unwrap().1).unwrap();
    let periodic = json!({
        "all_ms": 3_600_000, "minutes_ms": 86_400_000, "hours_ms": 2_592_000_000_u64
    });
    let rules = json!({
        "keep_last": 7, "keep_for_ms": 2_592_000_000_u64, "periodic": periodic
    });
    assert_eq!(body, rules);

    let leaving = json!({ "items": [
        { "branch": "dev", "branch_id": "b1", "version": version(None) },
        { "branch": "old", "branch_id": "b2" },
    ] });
    let (done, requests) = execute("project retention shop --dry-run", &[list, leaving]);
    assert_eq!(requests[1], "POST /v1/projects/shop/retention/preview");
    assert_eq!(
        done.unwrap().text(Format::Human),
        "BRANCH  VERSION              CREATED   CAUSE     STORED  LABEL\n\
         dev     v2                   long ago  snapshot  0 B\n\
         old     (deleted branch b2)  -         -         -\n"
    );
}
