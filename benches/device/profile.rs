//! Where a step's time goes on the device: every launch, in its place between the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use burn::tensor::Device;
use cubecl::{
    config::{TypeNameFormatLevel, type_name_format},
    future::block_on,
    logging::{LaunchObservation, LaunchObserver, TimingRequest},
    profile::{Duration, Instant, ProfileDuration, TimingMethod},
};
use serde_json::json;

/// Keeps the measurements, which are only read when the step is over: the launches go on back to back.
#[derive(Default)]
struct Kept(Mutex<Vec<(&'static str, ProfileDuration)>>);

impl LaunchObserver for Kept {
    fn launched(&self, _: &'static str) {}

    fn timing(&self) -> TimingRequest {
        TimingRequest::Deferred
    }

    fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
        self.0.lock().expect("nobody panics with the lock").push((kernel, profile));
    }

    fn timed(&self, kernel: &'static str, _: Duration, _: TimingMethod) {
        unreachable!("{kernel}: burn's own profile is on (CUBECL_DEBUG_OPTION), which leaves nothing to measure here");
    }
}

/// Runs a step, and prints a line for each launch, then one for each kernel, then the sums, in milliseconds.
pub fn profile(device: &Device, step: impl FnOnce()) {
    device.sync().expect("the device answers");
    let kept = Arc::new(Kept::default());
    let watching = LaunchObservation::new(kept.clone());
    let epoch = Instant::now();
    step();
    device.sync().expect("the device answers");
    drop(watching);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let launches = std::mem::take(&mut *kept.0.lock().expect("as above"));
    let launches: Vec<_> = launches
        .into_iter()
        .filter_map(|(kernel, profile)| {
            let ticks = block_on(profile.resolve())?;
            let kernel = type_name_format(kernel, TypeNameFormatLevel::Short);
            Some((kernel, ms(ticks.start_duration_since(epoch)), ms(ticks.duration())))
        })
        .collect();
    let mut kernels = BTreeMap::<&str, (usize, f64)>::new();
    for (kernel, start, duration) in &launches {
        println!("{}", json!({ "launch": kernel, "at": start, "ms": duration }));
        let (count, sum) = kernels.entry(kernel).or_default();
        *count += 1;
        *sum += duration;
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
    for (kernel, (count, sum)) in kernels {
        println!("{}", json!({ "kernel": kernel, "launches": count, "ms": sum }));
    }
    let busy: f64 = launches.iter().map(|(_, _, duration)| duration).sum();
    let first = launches.first().map_or(0.0, |(_, start, _)| *start);
    let end = launches.iter().map(|(_, start, duration)| start + duration).fold(0.0, f64::max);
    println!("{}", json!({ "launches": launches.len(), "ms in kernels": busy, "ms from first to last": end - first }));
}
