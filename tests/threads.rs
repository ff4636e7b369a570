//! What threads run on. In a process of its own, because there is one pool of threads in each.

use std::collections::BTreeSet;

use deberta_burn::device::one_thread_a_core;

#[test]
fn each_thread_has_its_core() {
    let cores = core_affinity::get_core_ids().expect("the system says what cores there are").len();
    one_thread_a_core();
    let bound = rayon::broadcast(|_| core_affinity::get_core_ids().expect("the same of a thread"));
    if bound.len() == cores {
        assert!(bound.iter().all(|of_thread| of_thread.len() == 1), "{bound:?}");
        let distinct: BTreeSet<_> = bound.iter().flatten().map(|core| core.id).collect();
        assert_eq!(distinct.len(), cores, "{bound:?}");
    } else {
        // RAYON_NUM_THREADS, or a limit on the process's time: threads keep all cores.
        assert!(bound.iter().all(|of_thread| of_thread.len() == cores), "{bound:?}");
    }
}
