//! CRLs: the issuing CAs' are written anew after every revocation and on a timer, and all are
//! served as they are on disk (RFC 5280 section 4.2.1.13: HTTP, DER).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED,
};
use hyper::{Method, Request, Response, StatusCode};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::desk::Desk;
use super::http::{Answer, empty, not_allowed};
use crate::audit::Event;
use crate::ca::{CaFiles, refresh_crls};
use crate::clock::{UnixTime, unix_now};
use crate::identity::Fingerprint;
use crate::registry::ChangeKind;

/// How often the files are looked at: another process may have written them.
const LOOK: Duration = Duration::from_secs(2);
/// How long a relying party may keep what it got without asking again.
const KEEP: Duration = Duration::from_secs(300);
/// Between two CRLs, however fast revocations come.
const BETWEEN: Duration = Duration::from_secs(1);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// Changes that are looked through at once.
const CHANGES: u32 = 1000;

/// How CRLs are kept fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlOptions {
    /// How often to look whether a new one is due, beside after every revocation.
    pub every: Duration,
}

/// One CRL, ready to be sent.
struct Served {
    der: Bytes,
    tag: HeaderValue,
    modified: HeaderValue,
    expires: HeaderValue,
    next_update: UnixTime,
}

/// The folder's CRLs as they are on disk, by the path that they are asked for: of the CAs that sign, and of
/// those that were replaced, whose certificates are good until they are over.
pub(super) struct Crls {
    files: CaFiles,
    served: ArcSwap<BTreeMap<String, Arc<Served>>>,
}

impl Crls {
    pub fn new(files: CaFiles) -> Self {
        let crls = Self {
            files,
            served: ArcSwap::default(),
        };
        crls.read();
        crls
    }

    /// Where each is asked for, and where it is.
    fn places(&self) -> Vec<(String, PathBuf)> {
        let both = |before: &str, files: &CaFiles| {
            [
                (format!("/crl/{before}issuing.crl"), files.issuing_crl()),
                (format!("/crl/{before}root.crl"), files.root_crl()),
            ]
        };
        let mut places = Vec::from(both("", &self.files));
        // A folder that cannot be listed now has no less to serve than before.
        for retired in self.files.generations().unwrap_or_default() {
            if let Some(name) = retired.dir().file_name().and_then(|name| name.to_str())
                && retired.dir() != self.files.dir()
            {
                places.extend(both(&format!("retired/{name}/"), &retired));
            }
        }
        places
    }

    /// Reads the files; what cannot be read stays as it was.
    fn read(&self) {
        let mut served = BTreeMap::clone(&self.served.load());
        for (asked, path) in self.places() {
            match load(&path) {
                Ok(Some(crl)) => {
                    served.insert(asked, Arc::new(crl));
                }
                Ok(None) => {}
                Err(what) => tracing::error!("`{}` is not served anew: {what}", path.display()),
            }
        }
        self.served.store(Arc::new(served));
    }

    /// The answer to one request.
    pub fn answer(&self, request: &Request<Incoming>) -> Answer {
        let Some(crl) = self.served.load().get(request.uri().path()).cloned() else {
            return empty(StatusCode::NOT_FOUND);
        };
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return not_allowed("GET, HEAD");
        }
        let known = request.headers().get_all(IF_NONE_MATCH).iter();
        let known = known.filter_map(|tags| tags.to_str().ok());
        let tag = crl.tag.to_str().unwrap_or_default();
        let unchanged = known.flat_map(|tags| tags.split(',')).any(|one| {
            let one = one.trim();
            one == "*" || one.trim_start_matches("W/") == tag
        });
        let mut answer = if unchanged {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            Response::new(Full::new(crl.der.clone()))
        };
        let headers = answer.headers_mut();
        let left = crl.next_update.since(unix_now()).min(KEEP).as_secs();
        let keep = format!("public, max-age={left}");
        let keep = HeaderValue::from_str(&keep).expect("a number is a header's value");
        headers.insert(CACHE_CONTROL, keep);
        headers.insert(ETAG, crl.tag.clone());
        headers.insert(LAST_MODIFIED, crl.modified.clone());
        headers.insert(EXPIRES, crl.expires.clone());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/pkix-crl"),
        );
        answer
    }

    /// Looks at the files until stopped.
    pub async fn follow(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut seen = self.look();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = self.look();
            if now != seen {
                self.read();
                seen = now;
            }
        }
    }

    fn look(&self) -> Vec<Option<(SystemTime, u64)>> {
        let about = |(_, path): &(String, PathBuf)| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        self.places().iter().map(about).collect()
    }
}

fn load(path: &Path) -> Result<Option<Served>, String> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let der = CertificateRevocationListDer::from_pem_slice(&text).map_err(|e| e.to_string())?;
    let (_, crl) = CertificateRevocationList::from_der(&der).map_err(|e| e.to_string())?;
    let next = crl.next_update().map_or(0, |time| time.timestamp());
    let tag = format!("\"{}\"", Fingerprint::of_der(&der));
    Ok(Some(Served {
        tag: HeaderValue::from_str(&tag).map_err(|e| e.to_string())?,
        modified: http_date(UnixTime(crl.last_update().timestamp())),
        expires: http_date(UnixTime(next)),
        next_update: UnixTime(next),
        der: Bytes::copy_from_slice(&der),
    }))
}

/// RFC 9110 section 5.6.7.
fn http_date(at: UnixTime) -> HeaderValue {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = OffsetDateTime::from_unix_timestamp(at.0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let text = at.format(&format).unwrap_or_default();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0"))
}

/// Keeps the issuing CA's CRL fresh until stopped: after each revocation, and on the timer.
pub(super) async fn refresh(
    desk: Arc<Desk>,
    files: CaFiles,
    crls: Arc<Crls>,
    options: CrlOptions,
    mut stopped: watch::Receiver<bool>,
) {
    // The first one right away: what was revoked while nobody was here counts too.
    let mut wait = Duration::ZERO;
    let mut known = desk.store().newest().await.unwrap_or(0);
    loop {
        let due = async {
            tokio::time::sleep(wait.min(BETWEEN)).await;
            let left = wait.saturating_sub(BETWEEN);
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                seq = revoked(&desk, known) => known = seq,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = due => {}
        }
        wait = match write(&desk, &files).await {
            Ok(()) => options.every,
            Err(error) => {
                tracing::error!(%error, "the CRL could not be written");
                AGAIN
            }
        };
        crls.read();
    }
}

async fn write(desk: &Desk, files: &CaFiles) -> Result<(), crate::ca::CrlError> {
    let parts = desk.parts();
    for open in [std::slice::from_ref(&parts.authority), &parts.others] {
        let oid = &parts.permission_oid;
        let written = refresh_crls(files, open, &*parts.store, oid, unix_now()).await?;
        for crl in written {
            tracing::info!(path = %crl.path.display(), number = crl.number, "CRL written");
            let event = Event::CrlWritten {
                path: &crl.path.display().to_string(),
                number: crl.number,
                entries: crl.entries,
                next_update: crl.next_update,
            };
            // Kept and tried again by the log itself.
            let _ = desk.audit().event(event).await;
        }
    }
    Ok(())
}

/// Ready when something was revoked after the change `known`; the newest change by then.
async fn revoked(desk: &Desk, mut known: u64) -> u64 {
    loop {
        match desk.store().changed(known, Duration::from_secs(60)).await {
            Ok(newest) if newest != known => {}
            Ok(_) => continue,
            Err(_) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        let Ok(changes) = desk.store().changes(known, CHANGES).await else {
            continue;
        };
        let newest = changes.last().map_or(0, |change| change.seq);
        // A store that went back is looked at from its end on, and its revocations are written; so
        // are those that may have been among changes that were pruned before they were seen.
        let back = newest == 0;
        let gap = changes.first().is_some_and(|first| first.seq > known + 1);
        known = if back {
            desk.store().newest().await.unwrap_or(known)
        } else {
            newest
        };
        if back
            || gap
            || changes
                .iter()
                .any(|change| change.kind == ChangeKind::Revoked)
        {
            return known;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        let date = http_date(UnixTime(784_111_777));
        assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
