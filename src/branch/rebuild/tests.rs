//! What a rebuild enters, of a store that is sound and of one that is not.

use std::time::Duration;

use super::*;
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, Epoch};
use crate::base::own_time::OwnTime;
use crate::store::StoreError;
use crate::volume::{Cause, MongodVersion, Origin, VolumeError};

fn version(number: u8) -> Version {
    Version {
        id: VersionId::from_bytes([number; 16]),
        parent: None,
        branch: Some(BranchId::from_bytes([1; 16])),
        cause: Cause::Snapshot,
        label: Some("sale".into()),
        created: Timestamp::from_unix_ms(u64::from(number)),
        mongod: MongodVersion { version: "6.0.5".into(), fcv: "6.0".into(), image: None },
        total_bytes: 3,
        new_bytes: 2,
        stored_bytes: 1,
    }
}

/// Branch `number` of project 1 on version `number`.
fn head(number: u8) -> Head {
    Head {
        branch: BranchId::from_bytes([number; 16]),
        branch_name: format!("b{number}").parse().unwrap(),
        project: ProjectId::from_bytes([1; 16]),
        project_name: "shop".parse().unwrap(),
        version: VersionId::from_bytes([number; 16]),
        epoch: Epoch(number.into()),
        owner: None,
        created: Timestamp::from_unix_ms(number.into()),
        deleted: None,
        origin: None,
        idle_timeout: OwnTime::Off,
        snapshot_every: OwnTime::Off,
        keep_warm: OwnTime::Time(Duration::from_secs(60)),
    }
}

fn project() -> Project {
    Project {
        id: ProjectId::from_bytes([1; 16]),
        name: "shop".parse().unwrap(),
        created: Timestamp::from_unix_ms(1),
        base: Some(VersionId::from_bytes([1; 16])),
        retention: Retention::from_ms(Some(3), None, None),
        image: Some("mongo:8.0".to_owned()),
    }
}

fn survey(heads: impl IntoIterator<Item = Head>) -> Survey {
    Survey {
        projects: vec![project()],
        heads: heads.into_iter().collect(),
        versions: (1..=5).map(version).collect(),
        pins: vec![VersionId::from_bytes([2; 16]), VersionId::from_bytes([99; 16])],
        damaged: Vec::new(),
    }
}

fn us() -> ServerId {
    ServerId::from_bytes([7; 16])
}

fn check(plan: &Plan, problems: &[&str], notes: &[&str]) {
    for (found, expected) in [(&plan.problems, problems), (&plan.rebuilt.notes, notes)] {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "`{expected}` in `{found}`");
        }
    }
}

#[test]
fn a_sound_store_says_all_of_it() {
    let deleted = Some(Timestamp::from_unix_ms(9));
    let origin = Some(Origin { branch: BranchId::from_bytes([1; 16]), version: version(1).id });
    let heads = [Head { deleted, ..head(1) }, Head { origin, ..head(2) }];
    let plan = plan(survey(heads), Vec::new(), us());
    check(&plan, &[], &[]);
    let Contents { versions, projects, branches } = plan.contents;
    assert_eq!(kept(&projects[0]), project());
    assert_eq!(branches.len(), 2);
    let [live, gone] = &branches[..] else { panic!() };
    assert_eq!((gone.deleted, gone.epoch, live.deleted), (deleted, Epoch(1), None));
    assert_eq!((live.origin_version, live.idle_timeout), (Some(version(1).id), OwnTime::Off));
    assert_eq!(live.snapshot_every, OwnTime::Off);
    assert_eq!(live.keep_warm, head(2).keep_warm);
    let pinned: Vec<_> = versions.iter().map(|row| row.pinned).collect();
    assert_eq!(pinned, [false, true, false, false, false]);
    assert_eq!(versions[0].label.as_deref(), Some("sale"));
    let rebuilt = Rebuilt {
        projects: 1,
        branches: 1,
        deleted: 1,
        versions: 5,
        pinned: 1,
        ..Rebuilt::default()
    };
    assert_eq!(plan.rebuilt, rebuilt);
    assert!(plan.missing.is_empty() && plan.aside.is_empty());
}

#[test]
fn what_is_missing_is_named_and_the_rest_entered() {
    let damaged = VolumeError::Store {
        doing: "read heads/x".into(),
        source: StoreError::NotFound { key: "heads/x".parse().unwrap() },
    };
    let origin = Some(Origin { branch: BranchId::from_bytes([1; 16]), version: version(50).id });
    let heads = [Head { version: version(40).id, origin, ..head(1) }, head(2)];
    let base = Some(version(60).id);
    let projects = vec![Project { base, ..project() }];
    let plan = plan(Survey { projects, damaged: vec![damaged], ..survey(heads) }, Vec::new(), us());
    check(&plan, &["read heads/x: ", "branch shop/b1 stands on version "], &["lost its base"]);
    let row = plan.contents.branches.iter().find(|row| row.name.as_str() == "b1").unwrap();
    assert_eq!((row.head, row.origin_version, row.origin_branch), (version(40).id, None, None));
    assert!(plan.contents.versions.iter().any(|row| row.id == version(40).id));
    assert_eq!(plan.contents.projects[0].base, None);
    assert_eq!(plan.rebuilt.versions, 5, "a placeholder is none");
}

#[test]
fn a_project_without_an_object_is_made_of_its_heads_and_keeps_everything() {
    let plan = plan(Survey { projects: vec![], ..survey([head(3), head(2)]) }, Vec::new(), us());
    check(&plan, &[], &["project shop was made again from its branches"]);
    let project = &plan.contents.projects[0];
    assert_eq!((project.name.as_str(), project.created), ("shop", head(2).created));
    assert_eq!((project.base, project.retention), (None, Retention::from_ms(None, None, None)));
    assert_eq!(plan.missing, std::slice::from_ref(project));
}

#[test]
fn of_two_with_one_name_the_one_that_lived_longer_keeps_it() {
    let named =
        |number: u8, name: &str| Head { branch_name: name.parse().unwrap(), ..head(number) };
    let long = "a".repeat(63);
    let deleted = Head { deleted: Some(Timestamp::from_unix_ms(1)), ..named(5, "dev") };
    let heads = [named(1, "dev"), named(2, "dev"), deleted, named(3, &long), named(4, &long)];
    let other = Project {
        id: ProjectId::from_bytes([9; 16]),
        created: Timestamp::from_unix_ms(2),
        ..project()
    };
    let plan = plan(Survey { projects: vec![other, project()], ..survey(heads) }, Vec::new(), us());
    check(&plan, &[], &["another `shop`", "another `aaa", "another `dev`"]);
    let name_of = |number: u8| {
        let branch = plan.contents.branches.iter().find(|row| row.id == head(number).branch);
        branch.unwrap().name.to_string()
    };
    let tail = |number: u8| head(number).branch.to_string()[20..].to_owned();
    assert_eq!([name_of(2), name_of(5), name_of(4)], ["dev", "dev", &long]);
    assert_eq!(name_of(1), format!("dev-{}", tail(1)));
    assert_eq!(name_of(3), format!("{}-{}", "a".repeat(56), tail(3)));
    assert_eq!(plan.contents.projects[0].name.as_str(), "shop");
    assert_eq!(plan.contents.projects[0].id, project().id);
}

#[test]
fn a_working_directory_goes_to_the_branch_whose_owner_this_server_is() {
    let owner = |owner: Option<ServerId>, number: u8| Head { owner, ..head(number) };
    let other = Some(ServerId::from_bytes([8; 16]));
    let deleted = Head { deleted: Some(Timestamp::from_unix_ms(9)), ..owner(Some(us()), 4) };
    let heads = [owner(Some(us()), 1), owner(other, 2), owner(None, 3), deleted];
    let unsaved = |number: u8| Unsaved {
        branch: BranchId::from_bytes([number; 16]),
        place: format!("/data/work/{number}/db").into(),
    };
    let plan = plan(survey(heads), [1, 2, 3, 4, 5].map(unsaved).to_vec(), us());
    check(&plan, &[], &["/data/work/5/db holds data of a branch that the store does not know"]);
    assert_eq!(plan.aside, [2, 3, 4].map(unsaved));
    assert_eq!(plan.rebuilt.unsaved, ["shop/b1"]);
    for row in &plan.contents.branches {
        let expected = match row.id == head(1).branch {
            true => LocalData::Present { base: version(1).id, saving: None },
            false => LocalData::None,
        };
        assert_eq!(row.local, expected, "{}", row.name);
    }
}
