//! Listing, page by page.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::Object as Found;

use super::Bucket;
use crate::base::clock::Timestamp;
use crate::store::{Key, LIST_PAGE, Listed, StoreError};

impl Bucket {
    /// The server's pages may be smaller than ours, and hold objects that are not Argon's.
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
    ) -> Result<Vec<Listed>, StoreError> {
        let own = self.settings.prefix.as_str();
        let all = format!("{own}{prefix}");
        // Before the first key with this prefix it says nothing, and garage finds nothing then.
        let mut after = after.map(|key| self.name(key)).filter(|after| *after >= all);
        let mut listed = Vec::new();
        loop {
            let page = self.tried(self.patience(0), async |client: Client| {
                let request = client.list_objects_v2().bucket(&self.settings.bucket).prefix(&all);
                Ok(request.set_start_after(after.clone()).max_keys(LIST_PAGE as i32).send().await?)
            });
            let page = page.await.map_err(|failure| {
                let (subject, bucket) = (format!("{prefix}*"), &self.settings.bucket);
                failure.into_error("list", format!("{subject} in bucket {bucket}"), bucket)
            })?;
            let entries = page.contents().iter().filter_map(|found| entry(found, own));
            // Asked for `/`, which begins no key, a server of files may give all there is.
            listed.extend(entries.filter(|entry| entry.key.as_str().starts_with(prefix)));
            let last = page.contents().last().and_then(Found::key).map(str::to_owned);
            if listed.len() >= LIST_PAGE || page.is_truncated() != Some(true) || last.is_none() {
                listed.truncate(LIST_PAGE);
                return Ok(listed);
            }
            after = last;
        }
    }
}

/// `None` for what no key of ours names: somebody else put it there.
fn entry(found: &Found, prefix: &str) -> Option<Listed> {
    let key = found.key()?.strip_prefix(prefix)?.parse().ok()?;
    let bytes = u64::try_from(found.size()?).ok()?;
    let modified = found.last_modified()?.to_millis().ok()?;
    let modified = Timestamp::from_unix_ms(u64::try_from(modified).ok()?);
    Some(Listed { key, bytes, modified })
}
