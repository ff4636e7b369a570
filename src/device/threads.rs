//! A thread for each core.

/// Binds each of the threads that share a CPU's work to a core of its own, for programs that answer now and then, such as servers.
///
/// After a pause all threads sleep, and Linux may wake two of them on one core, where they take turns until it moves one of them
/// away: a text of 32 tokens then takes up to twice as long. Bound threads begin at once, each on its core.
///
/// To be called before anything is computed; later it changes nothing. Nor does it where the number of threads is not that of
/// the cores (`RAYON_NUM_THREADS`), since several such processes would then share the first cores and leave the others idle.
pub fn one_thread_a_core() {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let bind = move |thread: usize| {
        if cores.len() == rayon::current_num_threads() {
            core_affinity::set_for_current(cores[thread]);
        }
    };
    if let Err(error) = rayon::ThreadPoolBuilder::new().start_handler(bind).build_global() {
        tracing::warn!("threads are not bound to cores: {error}");
    }
}
