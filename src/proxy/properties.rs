//! What a client wrote is what is found, whatever it wrote and however it came.

use bson::{RawDocumentBuf, rawdoc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::address::Address;
use super::skim::{Found, Skim};
use crate::wire::MsgFlags;

/// A field of a command, and what it tells.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    TxnNumber,
    Autocommit(bool),
    /// A document that holds the fields which matter, one level too deep.
    Inner,
    Text(usize),
    Null,
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        Just(Field::TxnNumber),
        any::<bool>().prop_map(Field::Autocommit),
        Just(Field::Inner),
        (0..300_usize).prop_map(Field::Text),
        Just(Field::Null),
    ]
}

fn command(name: &str, fields: &[Field]) -> RawDocumentBuf {
    use bson::raw::cstr;
    let mut command = RawDocumentBuf::new();
    command.append(bson::raw::CString::try_from(name).unwrap(), 1);
    for field in fields {
        match field {
            Field::TxnNumber => command.append(cstr!("txnNumber"), 1_i64),
            Field::Autocommit(value) => command.append(cstr!("autocommit"), *value),
            Field::Inner => {
                command.append(cstr!("inner"), rawdoc! { "txnNumber": 1, "autocommit": false });
            }
            Field::Text(length) => command.append(cstr!("text"), "\0".repeat(*length)),
            Field::Null => command.append(cstr!("null"), bson::RawBson::Null),
        }
    }
    command
}

proptest! {
    #[test]
    fn a_command_is_found_however_it_comes(
        name in "[a-zA-Z]{1,64}",
        fields in vec(field(), 0..8),
        before in vec(0..500_usize, 0..3),
        after in vec(0..500_usize, 0..3),
        cuts in vec(any::<Index>(), 0..12),
        checksum: bool,
    ) {
        let sequence = |bytes: &usize| {
            let size = (4 + 2 + bytes) as i32;
            [&[1][..], &size.to_le_bytes(), b"d\0", &vec![0; *bytes]].concat()
        };
        let flags = u32::from(checksum);
        let mut body = flags.to_le_bytes().to_vec();
        before.iter().for_each(|one| body.extend(sequence(one)));
        body.push(0);
        body.extend(command(&name, &fields).as_bytes());
        after.iter().for_each(|one| body.extend(sequence(one)));
        body.extend(vec![1; if checksum { 4 } else { 0 }]);

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.sort_unstable();
        let mut skim = Skim::new(body.len());
        let mut start = 0;
        for end in cuts.into_iter().chain([body.len()]) {
            skim.feed(&body[start..end]).unwrap();
            start = end;
        }
        let expected = Found {
            flags: Some(MsgFlags(flags)),
            command: Some(name),
            has_txn_number: fields.contains(&Field::TxnNumber),
            in_transaction: fields.contains(&Field::Autocommit(false)),
            starts_transaction: false,
        };
        prop_assert_eq!(skim.found(), &expected);
    }

    #[test]
    fn every_address_is_read_back(
        project in proptest::option::of("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
        branch in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    ) {
        let text = match &project {
            Some(project) => format!("argon.{project}/{branch}"),
            None => format!("argon.{branch}"),
        };
        let address = Address::parse(Some(&text)).unwrap();
        prop_assert_eq!(address.project.map(String::from), project);
        prop_assert_eq!(String::from(address.branch), branch);
    }
}
