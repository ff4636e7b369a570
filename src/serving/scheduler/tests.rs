//! The queue with a simulated clock and model, and the thread with a real one.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{queue::Queue, *};
use crate::Error;

/// A sequence of this many tokens, unlike those with another id.
fn sequence(id: u32, tokens: usize) -> Sequence {
    let ids = std::iter::once(id).chain(std::iter::repeat_n(0, tokens - 1)).collect();
    Sequence::new(Encoding { ids, ..Encoding::default() })
}

fn id(sequence: &Sequence) -> u32 {
    sequence.0.ids[0]
}

fn ids(batch: &[Sequence]) -> Vec<u32> {
    batch.iter().map(id).collect()
}

/// Takes the next batch and answers each of its sequences with its id.
fn step(queue: &mut Queue, now: Instant) -> Vec<u32> {
    let batch = queue.next_batch(now);
    for sequence in &batch {
        let values = Arc::from([id(sequence) as f32]);
        queue.deliver(sequence, &Ok(Row { values, computed: (now, now) }));
    }
    ids(&batch)
}

/// The rows that came: place and first value.
fn rows(parts: &mut UnboundedReceiver<Part>) -> Vec<(usize, f32)> {
    let mut rows = Vec::new();
    while let Ok(Part { place, row }) = parts.try_recv() {
        rows.push((place, row.expect("a row").values[0]));
    }
    rows.sort_by_key(|(place, _)| *place);
    rows
}

#[test]
fn batches_fill_the_budget_and_a_long_sequence_runs_alone() {
    let now = Instant::now();
    let mut queue = Queue::new(100);
    let sequences = [(1, 30), (2, 300), (3, 40), (4, 40)].map(|(id, tokens)| sequence(id, tokens));
    let mut parts = queue.add(sequences.to_vec(), Urgency::default(), now);
    assert_eq!(queue.tokens(), 410);
    assert_eq!(step(&mut queue, now), [1, 4]);
    assert_eq!(step(&mut queue, now), [3]);
    assert_eq!(step(&mut queue, now), [2]);
    assert!(step(&mut queue, now).is_empty());
    assert_eq!(rows(&mut parts), [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]);
    assert_eq!((queue.len(), queue.tokens()), (0, 0));
}

#[test]
fn requests_take_turns() {
    let now = Instant::now();
    let mut queue = Queue::new(100);
    let _heavy = queue.add((0..20).map(|id| sequence(id, 50)).collect(), Urgency::default(), now);
    step(&mut queue, now);
    let mut single = queue.add(vec![sequence(100, 20)], Urgency::default(), now);
    let _other = queue.add((200..220).map(|id| sequence(id, 50)).collect(), Urgency::default(), now);
    let batches: Vec<Vec<u32>> = (0..3).map(|_| step(&mut queue, now)).collect();
    assert!(batches[..2].concat().contains(&100), "{batches:?}");
    assert_eq!(rows(&mut single), [(0, 100.0)]);
    // From here on the two heavy ones get as much as each other.
    let counted: Vec<u32> = (0..8).flat_map(|_| step(&mut queue, now)).collect();
    let first = counted.iter().filter(|&&id| id < 100).count();
    assert!(first.abs_diff(counted.len() - first) <= 2, "{counted:?}");
}

#[test]
fn a_near_deadline_goes_first_then_the_shortest_and_who_waited_long() {
    let now = Instant::now();
    let urgency = |seconds: Option<u64>, priority| Urgency {
        deadline: seconds.map(|seconds| now + Duration::from_secs(seconds)),
        priority,
    };
    let mut queue = Queue::new(64);
    let mut keep = Vec::new();
    let mut add =
        |queue: &mut Queue, id, tokens, urgency, now| keep.push(queue.add(vec![sequence(id, tokens)], urgency, now));
    let interactive = Priority::Interactive;
    add(&mut queue, 1, 60, urgency(None, interactive), now);
    add(&mut queue, 2, 40, urgency(None, interactive), now);
    add(&mut queue, 3, 61, urgency(Some(9), interactive), now);
    add(&mut queue, 4, 62, urgency(Some(5), interactive), now);
    add(&mut queue, 5, 30, urgency(None, Priority::Bulk), now);
    let order: Vec<u32> = (0..5).flat_map(|_| step(&mut queue, now)).collect();
    assert_eq!(order, [4, 3, 2, 1, 5]);
    // Twenty tokens more are made up for by the time that they waited.
    add(&mut queue, 6, 60, urgency(None, interactive), now);
    let later = now + Duration::from_millis(30);
    add(&mut queue, 7, 40, urgency(None, interactive), later);
    assert_eq!(step(&mut queue, later), [6]);
}

#[test]
fn a_stream_of_short_requests_does_not_starve_a_long_one() {
    let start = Instant::now();
    let mut queue = Queue::new(100);
    let mut long = queue.add(vec![sequence(0, 90)], Urgency::default(), start);
    let mut keep = Vec::new();
    // In each step as many short requests arrive as fill a batch.
    let steps = (0..50).take_while(|step_number| {
        let now = start + Duration::from_millis(*step_number);
        keep.extend(
            (0..10)
                .map(|id| queue.add(vec![sequence(1000 + 10 * *step_number as u32 + id, 10)], Urgency::default(), now)),
        );
        step(&mut queue, now);
        rows(&mut long).is_empty()
    });
    assert!(steps.count() < 10);
}

#[test]
fn equal_sequences_are_computed_once() {
    let now = Instant::now();
    let mut queue = Queue::new(100);
    let mut first = queue.add(vec![sequence(1, 10), sequence(2, 10), sequence(1, 10)], Urgency::default(), now);
    let mut second = queue.add(vec![sequence(1, 10)], Urgency::default(), now);
    let batch = queue.next_batch(now);
    assert_eq!(batch.len(), 2);
    // One that comes while the batch is being computed waits for that batch.
    let mut third = queue.add(vec![sequence(2, 10)], Urgency::default(), now);
    for sequence in &batch {
        let values: Arc<[f32]> = Arc::from([id(sequence) as f32]);
        queue.deliver(sequence, &Ok(Row { values: values.clone(), computed: (now, now) }));
        // All who wait share it: three for the first sequence, two for the second.
        assert_eq!(Arc::strong_count(&values) - 1, [3, 2][id(sequence) as usize - 1]);
    }
    assert_eq!(rows(&mut first), [(0, 1.0), (1, 2.0), (2, 1.0)]);
    assert_eq!((rows(&mut second), rows(&mut third)), (vec![(0, 1.0)], vec![(0, 2.0)]));
    assert!(queue.next_batch(now).is_empty());
    assert_eq!((queue.len(), queue.tokens()), (0, 0));
}

#[test]
fn who_has_left_or_is_too_late_is_not_computed() {
    let now = Instant::now();
    let mut queue = Queue::new(100);
    let urgency = Urgency { deadline: Some(now + Duration::from_secs(1)), priority: Priority::default() };
    // Also with equal sequences, in a request and among several.
    let mut late = queue.add(vec![sequence(1, 10), sequence(2, 10), sequence(1, 10)], urgency, now);
    drop(queue.add(vec![sequence(3, 10), sequence(3, 10), sequence(4, 10), sequence(4, 10)], Urgency::default(), now));
    let mut stays = queue.add(vec![sequence(2, 10), sequence(3, 10)], Urgency::default(), now);
    let batch = step(&mut queue, now + Duration::from_secs(1));
    assert_eq!(batch.len(), 2, "{batch:?}");
    let missed = std::iter::from_fn(|| late.try_recv().ok()).map(|part| (part.place, part.row.expect_err("too late")));
    assert_eq!(missed.collect::<Vec<_>>(), [0, 1, 2].map(|place| (place, Failure::Expired)));
    assert_eq!(rows(&mut stays), [(0, 2.0), (1, 3.0)]);
    assert_eq!((queue.len(), queue.tokens()), (0, 0));
}

/// Runs a model that takes 10 ms and 0.5 ms a token (a DeBERTa-v3-base on two cores): a client that reranks 32 passages of 190 to
/// 230 tokens again and again, and single texts of 40 tokens, one a second. Returns the 95th percentile of the single texts'
/// waiting times in seconds.
fn simulate(mut next_batch: impl FnMut(&mut Queue, Instant) -> Vec<Sequence>) -> f64 {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let mut queue = Queue::new(256);
    let mut now = 0.0;
    let (mut next_id, mut next_single) = (0, 0.5);
    let mut new = |tokens| {
        next_id += 1;
        sequence(next_id, tokens)
    };
    let mut heavy: Option<(UnboundedReceiver<Part>, usize)> = None;
    let mut singles: Vec<(f64, UnboundedReceiver<Part>)> = Vec::new();
    let mut waited = Vec::new();
    while waited.len() < 200 {
        if heavy.as_ref().is_none_or(|(_, missing)| *missing == 0) {
            let passages = (0..32).map(|passage| new(190 + passage * 40 / 31)).collect();
            heavy = Some((queue.add(passages, Urgency::default(), at(now)), 32));
        }
        while next_single <= now {
            singles.push((next_single, queue.add(vec![new(40)], Urgency::default(), at(next_single))));
            next_single += 1.0;
        }
        let batch = next_batch(&mut queue, at(now));
        now += 0.010 + 0.0005 * batch.iter().map(Sequence::tokens).sum::<usize>() as f64;
        for sequence in &batch {
            queue.deliver(sequence, &Ok(Row { values: Arc::from([0.0]), computed: (at(now), at(now)) }));
        }
        if let Some((parts, missing)) = &mut heavy {
            *missing -= rows(parts).len();
        }
        singles.retain_mut(|(arrived, parts)| {
            let done = !rows(parts).is_empty();
            waited.extend(done.then_some(now - *arrived));
            !done
        });
    }
    waited.sort_by(f64::total_cmp);
    waited[waited.len() * 95 / 100]
}

#[test]
fn single_texts_are_quick_beside_a_heavy_client() {
    let fair = simulate(|queue, now| queue.next_batch(now));
    // The same with one batch of all that waits, up to 16,384 tokens.
    let single_queue = simulate(|queue, now| {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while tokens < 16_384 {
            let next = queue.next_batch(now);
            if next.is_empty() {
                break;
            }
            tokens += next.iter().map(Sequence::tokens).sum::<usize>();
            batch.extend(next);
        }
        batch
    });
    assert!(fair < 0.5, "{fair}");
    assert!(single_queue > 10.0 * fair, "{single_queue} against {fair}");
}

fn settings() -> Settings {
    Settings { budget: 100, rate: 1000.0, max_waiting: 200, cache_bytes: 0 }
}

/// The first number of each row is the first id of its sequence.
fn first_ids(batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
    Ok(batch.iter().map(|encoding| vec![encoding.ids[0] as f32]).collect())
}

/// The rows of a request, in its order.
fn all(mut parts: UnboundedReceiver<Part>) -> Vec<Result<f32, Failure>> {
    let mut rows = Vec::new();
    while let Some(part) = parts.blocking_recv() {
        rows.push(part);
    }
    rows.sort_by_key(|part| part.place);
    rows.into_iter().map(|part| part.row.map(|row| row.values[0])).collect()
}

#[test]
fn the_model_thread_answers_and_admits_by_tokens() {
    let (entered, entries) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let forward = move |batch: &[&Encoding]| {
        entered.send(()).expect("the test listens");
        released.lock().unwrap().recv().expect("the test goes on");
        first_ids(batch)
    };
    let scheduler = Scheduler::start(forward, |_| (), settings());
    let running = scheduler.submit(vec![sequence(1, 90)], Urgency::default()).unwrap();
    entries.recv().unwrap();
    let waiting = scheduler.submit(vec![sequence(2, 90)], Urgency::default()).unwrap();
    assert_eq!(scheduler.load(), Load { requests: 2, tokens: 180 });
    let refused = scheduler.submit(vec![sequence(3, 30)], Urgency::default()).unwrap_err();
    let retry_after = Duration::from_millis(10);
    assert_eq!(refused, Refusal::Overloaded { waiting: 180, limit: 200, retry_after });
    let refused = scheduler.submit(vec![sequence(3, 201)], Urgency::default()).unwrap_err();
    assert_eq!(refused, Refusal::TooLarge { tokens: 201, limit: 200 });
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!((all(running), all(waiting)), (vec![Ok(1.0)], vec![Ok(2.0)]));
}

#[test]
fn a_failure_concerns_only_its_sequence() {
    let forward = |batch: &[&Encoding]| match batch.iter().any(|encoding| encoding.ids[0] == 13) {
        true if batch.len() > 1 => panic!("a test"),
        true => Err(Error::input("id", "13 is bad luck")),
        false => first_ids(batch),
    };
    let scheduler = Scheduler::start(forward, |_| (), settings());
    let parts = scheduler.submit(vec![sequence(12, 10), sequence(13, 10), sequence(14, 10)], Urgency::default());
    let failure = Failure::Model("id: 13 is bad luck".into());
    assert_eq!(all(parts.unwrap()), [Ok(12.0), Err(failure), Ok(14.0)]);
    let parts = scheduler.submit(vec![sequence(15, 10)], Urgency::default());
    assert_eq!(all(parts.unwrap()), [Ok(15.0)]);
}

#[test]
fn a_model_thread_that_ends_leaves_nobody_waiting() {
    let scheduler = Scheduler::start(first_ids, |_| panic!("a test"), settings());
    // Two batches, of which the first is answered.
    let parts = scheduler.submit(vec![sequence(1, 80), sequence(2, 90)], Urgency::default());
    assert_eq!(all(parts.unwrap()), [Ok(1.0), Err(Failure::Panicked)]);
    assert_eq!(scheduler.load(), Load { requests: 0, tokens: 0 });
    assert_eq!(scheduler.check(), Err(Refusal::Ended));
    assert_eq!(scheduler.submit(vec![sequence(3, 10)], Urgency::default()).unwrap_err(), Refusal::Ended);
}

#[test]
fn known_rows_are_not_computed_again() {
    let computed = Arc::new(Mutex::new(0));
    let count = computed.clone();
    let report = move |report: BatchReport| *count.lock().unwrap() += report.sequences;
    let scheduler = Scheduler::start(first_ids, report, Settings { cache_bytes: 10_000, ..settings() });
    for _ in 0..3 {
        let parts = scheduler.submit(vec![sequence(1, 10), sequence(2, 10)], Urgency::default());
        assert_eq!(all(parts.unwrap()), [Ok(1.0), Ok(2.0)]);
    }
    drop(scheduler);
    assert!(*computed.lock().unwrap() <= 2);
}
