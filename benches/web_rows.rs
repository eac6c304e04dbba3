//! What is measured over WebSocket and HTTP, and what it is held against.

use std::error::Error;

use serde_json::json;

use crate::calls::Against;
use crate::floor::Speech;
use crate::report::{Row, Target};
use crate::run::{Bench, here};
use crate::web::{self, Way};

/// One kind of call.
struct Calls {
    way: Way,
    key: &'static str,
    /// The row beside it with a floor that gives as many bytes.
    same: &'static str,
    shape: (usize, usize),
    measure: &'static str,
    target: Target,
}

const CALLS: [Calls; 4] = [
    Calls {
        way: Way::WebSocket,
        key: "ws-calls-1",
        same: "ws-calls-1-same-bytes",
        shape: (16, 1),
        measure: "WebSocket: tools/call, 16 connections, 1 in flight each",
        target: Target::Ratio(1.4),
    },
    Calls {
        way: Way::Http1,
        key: "http-calls-1",
        same: "http-calls-1-same-bytes",
        shape: (16, 1),
        measure: "HTTP/1.1: tools/call, 16 connections, 1 in flight each",
        target: Target::Ratio(1.4),
    },
    Calls {
        way: Way::Legacy,
        key: "http-legacy-calls-1",
        same: "http-legacy-calls-1-same-bytes",
        shape: (16, 1),
        measure: "the same in sessions of revision 2025-11-25",
        target: Target::None,
    },
    Calls {
        way: Way::Http2,
        key: "http2-calls-16",
        same: "http2-calls-16-same-bytes",
        shape: (1, 16),
        measure: "HTTP/2: tools/call, 1 connection, 16 in flight",
        target: Target::Above(6.0),
    },
];

/// Memory of idle connections.
const MEMORY: [(Way, &str, &str, Target); 3] = [
    (
        Way::WebSocket,
        "ws-memory",
        "WebSocket",
        Target::Ratio(1.25),
    ),
    (Way::Http1, "http-memory", "HTTP/1.1", Target::Ratio(1.25)),
    (Way::Http2, "http2-memory", "HTTP/2", Target::Ratio(1.25)),
];

pub(crate) fn run(bench: &mut Bench) -> Result<(), Box<dyn Error>> {
    for calls in &CALLS {
        one(bench, calls)?;
    }
    for (way, key, name, target) in MEMORY {
        memory(bench, way, key, name, target)?;
    }
    Ok(())
}

fn one(bench: &mut Bench, calls: &Calls) -> Result<(), Box<dyn Error>> {
    if !bench.wanted(calls.key) {
        return Ok(());
    }
    let speech = calls.way.speech();
    let mut against = vec![Against {
        key: calls.key,
        measure: calls.measure.to_owned(),
        target: calls.target,
        speech,
        as_many: false,
    }];
    if calls.way == Way::WebSocket {
        against.push(Against {
            key: "ws-calls-1-stock",
            measure: "the same, floor with tokio-tungstenite as it comes".to_owned(),
            target: Target::Ratio(1.4),
            speech: Speech::WebsocketStock,
            as_many: false,
        });
    }
    against.push(Against::as_many(calls.same, speech));
    let ours = bench.apart.as_server(|| bench.serve())?;
    let (pki, way, shape) = (bench.pki.clone(), calls.way, calls.shape);
    bench.calls(ours, against, async |server, expect, window| {
        web::calls(server, &pki, way, expect, shape, window).await
    })
}

fn memory(
    bench: &mut Bench,
    way: Way,
    key: &'static str,
    name: &str,
    target: Target,
) -> Result<(), Box<dyn Error>> {
    if !bench.wanted(key) {
        return Ok(());
    }
    let size = bench.args.crowd;
    let floor = bench.floor_of(way.speech(), true, None)?;
    let weigh = |server: &_, expect| {
        here(
            bench
                .runtime
                .block_on(web::crowd(server, &bench.pki, way, expect, size)),
        )
    };
    let weighed = weigh(&floor, crate::load::Expect::Echo)?;
    drop(floor);
    let ours = match bench.serve()? {
        Some(server) => Some(weigh(&server, crate::load::Expect::Result)?),
        None => None,
    };
    #[allow(clippy::cast_precision_loss, reason = "a size for people")]
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let detail = json!({
        "floor": { "rss": weighed.rss, "private": weighed.private },
        "ours": ours.map(|m| json!({ "rss": m.rss, "private": m.private })),
    });
    bench.report.rows.push(Row {
        key,
        measure: format!("{name}: resident memory for each of {size} idle connections"),
        unit: "KiB",
        floor: Some(kib(weighed.rss)),
        ours: ours.map(|m| kib(m.rss)),
        target,
        detail,
    });
    Ok(())
}
