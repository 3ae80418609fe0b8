//! Running a cursor to its end, documents untouched.

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::error::WireError;

/// An open cursor; it borrows its client until it is read to its end or dropped. One that is
/// dropped early stays open on the server until that times it out.
#[derive(Debug)]
pub struct Cursor<'c, S> {
    client: &'c mut Client<S>,
    db: String,
    collection: String,
    id: i64,
    batch: Option<Vec<RawDocumentBuf>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Runs a command that answers with a cursor (`find`, `aggregate`, `listCollections`, …).
    pub async fn cursor(
        &mut self,
        db: &str,
        command: &RawDocument,
    ) -> Result<Cursor<'_, S>, WireError> {
        let reply = self.checked(db, command).await?;
        let (id, namespace, batch) = read_batch(&reply, "firstBatch")?;
        // A collection's name may hold dots, a database's may not. `getMore` wants it without.
        let collection = namespace.split_once('.').map_or("", |(_, name)| name).to_owned();
        Ok(Cursor { client: self, db: db.to_owned(), collection, id, batch: Some(batch) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Cursor<'_, S> {
    /// The next documents, byte for byte as the server stores them; `None` at the end. A batch
    /// may be empty before the end. Not cancel safe.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<RawDocumentBuf>>, WireError> {
        if let Some(batch) = self.batch.take() {
            return Ok(Some(batch));
        }
        if self.id == 0 {
            return Ok(None);
        }
        let command = rawdoc! { "getMore": self.id, "collection": &*self.collection };
        let reply = self.client.checked(&self.db, &command).await?;
        let (id, _, batch) = read_batch(&reply, "nextBatch")?;
        self.id = id;
        Ok(Some(batch))
    }

    /// All documents to the end, where they are known to be few.
    pub async fn collect(mut self) -> Result<Vec<RawDocumentBuf>, WireError> {
        let mut all = Vec::new();
        while let Some(batch) = self.next_batch().await? {
            all.extend(batch);
        }
        Ok(all)
    }
}

fn read_batch<'r>(
    reply: &'r RawDocument,
    key: &str,
) -> Result<(i64, &'r str, Vec<RawDocumentBuf>), WireError> {
    let wrong = || WireError::bson("cursor in a reply");
    let cursor = reply.get_document("cursor").map_err(wrong())?;
    let id = cursor.get_i64("id").map_err(wrong())?;
    let namespace = cursor.get_str("ns").map_err(wrong())?;
    let mut batch = Vec::new();
    for element in cursor.get_array(key).map_err(wrong())? {
        let document = element.map_err(wrong())?.as_document().ok_or(WireError::Malformed {
            part: "cursor in a reply",
            problem: "its batch holds something that is no document",
        })?;
        batch.push(document.to_owned());
    }
    Ok((id, namespace, batch))
}

#[cfg(test)]
mod tests {
    use bson::RawArrayBuf;

    use super::super::client::tests::{reply, scripted};
    use super::super::msg::Msg;
    use super::*;

    fn batch(id: i64, key: &str, numbers: std::ops::Range<i32>) -> RawDocumentBuf {
        let documents: RawArrayBuf = numbers.map(|n| rawdoc! { "_id": n }).collect();
        let mut cursor = rawdoc! { "id": id, "ns": "shop.orders.2024" };
        cursor.append(<&bson::raw::CStr>::try_from(key).unwrap(), documents);
        rawdoc! { "cursor": cursor, "ok": 1 }
    }

    #[tokio::test]
    async fn a_cursor_is_read_to_its_end() {
        let (mut client, peer) = scripted(|request| {
            let id = Msg::parse(&request.body).unwrap().body.get_i64("getMore");
            reply(
                request,
                &match id {
                    Err(_) => batch(5, "firstBatch", 0..2),
                    Ok(5) => batch(6, "nextBatch", 2..2),
                    Ok(6) => batch(0, "nextBatch", 2..5),
                    Ok(other) => panic!("getMore on {other}"),
                },
            )
        });
        let cursor = client.cursor("shop", &rawdoc! { "find": "orders.2024" }).await.unwrap();
        let found = cursor.collect().await.unwrap();
        let expected: Vec<_> = (0..5).map(|n| rawdoc! { "_id": n }).collect();
        assert_eq!(found, expected);
        drop(client);
        let seen = peer.await.unwrap();
        let last = Msg::parse(&seen[2].body).unwrap().body;
        assert_eq!(last.get_str("collection").unwrap(), "orders.2024");
    }

    #[tokio::test]
    async fn a_reply_without_a_cursor_is_an_error() {
        for answer in [
            rawdoc! { "ok": 1 },
            rawdoc! { "ok": 1, "cursor": 3 },
            rawdoc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "a.b", "firstBatch": [1] } },
            rawdoc! { "ok": 0, "code": 43 },
        ] {
            let (mut client, _peer) = scripted(move |request| reply(request, &answer));
            assert!(client.cursor("a", &rawdoc! { "find": "b" }).await.is_err());
        }
    }
}
