//! One processor for the server, another for the load that calls it.
//!
//! On loopback the server's `send` also does what on a network the other machine does: it runs the
//! receiver's half of the kernel's work, and where the receiver sleeps it wakes it. The first is the same
//! for every server. The second is not: the faster the server, the less its load sleeps, so that a slow one
//! pays for waking it and a fast one does not. And where server and load share the processors, what the
//! scheduler makes of more threads than processors counts as the server's. So calls are measured apart: the
//! server's threads have one processor, the load has one thread on another, and that thread never sleeps.

use std::error::Error;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where each runs.
#[derive(Clone, Debug)]
pub(crate) struct Apart {
    all: CpuSet,
    server: CpuSet,
    load: CpuSet,
}

impl Apart {
    /// The first and the last processor that this process may use.
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let all = sched_getaffinity(None)?;
        let may: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| all.is_set(*cpu))
            .collect();
        let (Some(first), Some(last)) = (may.first(), may.last()) else {
            return Err("this process may use no processor".into());
        };
        let only = |cpu: usize| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        };
        Ok(Self {
            all,
            server: only(*first),
            load: only(*last),
        })
    }

    /// Whether those are two.
    pub(crate) fn are_apart(&self) -> bool {
        self.server != self.load
    }

    /// Runs this on the server's processor; the processes that it starts stay there.
    pub(crate) fn as_server<T>(
        &self,
        run: impl FnOnce() -> Result<T, Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        self.on(&self.server, run)
    }

    /// Runs this on the load's processor.
    pub(crate) fn as_load<T>(
        &self,
        run: impl FnOnce() -> Result<T, Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        self.on(&self.load, run)
    }

    fn on<T>(
        &self,
        place: &CpuSet,
        run: impl FnOnce() -> Result<T, Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        sched_setaffinity(None, place)?;
        let done = run();
        sched_setaffinity(None, &self.all)?;
        done
    }
}
