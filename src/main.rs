//! Parses, runs, exits.

/// Connections come on one thread and may end on another, thousands at once: the system's allocator then
/// goes through long lists of what was freed. Measured in `docs/measure.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    countersign::cli::main()
}
