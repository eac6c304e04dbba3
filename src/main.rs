//! Parses, runs, exits.

use countersign::secret::WipingAllocator;
use mimalloc::MiMalloc;

/// Connections come on one thread and may end on another, thousands at once: the system's allocator then
/// goes through long lists of what was freed. What is freed is wiped, because libraries keep keys on the
/// heap that they do not wipe. Both are measured in `docs/measure.md`.
#[global_allocator]
static ALLOCATOR: WipingAllocator<MiMalloc> = WipingAllocator(MiMalloc);

fn main() -> std::process::ExitCode {
    countersign::cli::main()
}
