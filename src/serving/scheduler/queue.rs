//! What is computed next: the sequences that wait, and the order in which they get their turn. Nothing here knows of threads,
//! or of a clock other than the time that it is told.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Failure, Part, Priority, Row, Sequence, Urgency};

/// By how many tokens a request that waited for a second counts as shorter than it is.
const AGEING: f64 = 1000.0;

/// The requests that wait, whole or in part.
///
/// Requests take turns (deficit round robin; Shreedhar and Varghese 1995). In a round each may compute a quarter of a batch's
/// budget; what it takes beyond that, because sequences are not cut, is taken off its next rounds. Inside a round, those with a
/// deadline come first, the nearest before the others; then the shortest, and who waited becomes shorter ([`AGEING`]).
pub(super) struct Queue {
    budget: usize,
    requests: BTreeMap<u64, Waiting>,
    /// Who waits for a sequence, by request and place in it: equal sequences are computed once.
    places: HashMap<Sequence, Vec<(u64, usize)>>,
    tokens: usize,
    next: u64,
}

/// A request of which something is missing.
struct Waiting {
    /// Its sequences; none where the row was sent.
    sequences: Vec<Option<Sequence>>,
    /// Places of those that were in no batch yet, the longest first.
    pending: Vec<usize>,
    /// Tokens of the sequences whose rows are missing.
    tokens: usize,
    /// Tokens that it may still compute in this round, or has computed beyond that.
    deficit: i64,
    arrived: Instant,
    urgency: Urgency,
    reply: UnboundedSender<Part>,
}

impl Waiting {
    /// Whether it is to be computed in this round.
    fn has_turn(&self) -> bool {
        self.deficit > 0 && !self.pending.is_empty()
    }

    /// The order inside a round.
    fn compare(&self, other: &Self, now: Instant) -> Ordering {
        let length = |waiting: &Self| waiting.tokens as f64 - AGEING * (now - waiting.arrived).as_secs_f64();
        let deadline = |waiting: &Self| (waiting.urgency.deadline.is_none(), waiting.urgency.deadline);
        let by_priority = self.urgency.priority.cmp(&other.urgency.priority);
        by_priority
            .then_with(|| deadline(self).cmp(&deadline(other)))
            .then_with(|| length(self).total_cmp(&length(other)))
    }

    /// Says of each sequence whose row is missing why there will be none.
    fn fail(&self, failure: &Failure) {
        for (place, _) in self.sequences.iter().enumerate().filter(|(_, sequence)| sequence.is_some()) {
            let _ = self.reply.send(Part { place, row: Err(failure.clone()) });
        }
    }
}

impl Queue {
    /// An empty queue for batches of `budget` tokens.
    pub fn new(budget: usize) -> Self {
        Self { budget, requests: BTreeMap::new(), places: HashMap::new(), tokens: 0, next: 0 }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Tokens that wait or are being computed.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Most tokens of a batch.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Adds a request. It gets its first turn in the next round.
    pub fn add(&mut self, sequences: Vec<Sequence>, urgency: Urgency, now: Instant) -> UnboundedReceiver<Part> {
        let (reply, parts) = unbounded_channel();
        let id = self.next;
        self.next += 1;
        let tokens = sequences.iter().map(Sequence::tokens).sum();
        for (place, sequence) in sequences.iter().enumerate() {
            self.places.entry(sequence.clone()).or_default().push((id, place));
        }
        let mut pending: Vec<usize> = (0..sequences.len()).collect();
        pending.sort_by_key(|&place| std::cmp::Reverse(sequences[place].tokens()));
        let sequences = sequences.into_iter().map(Some).collect();
        let waiting = Waiting { sequences, pending, tokens, deficit: 0, arrived: now, urgency, reply };
        self.tokens += tokens;
        self.requests.insert(id, waiting);
        parts
    }

    /// The next batch; empty if nothing waits. A sequence that is longer than the budget is a batch of its own.
    pub fn next_batch(&mut self, now: Instant) -> Vec<Sequence> {
        self.drop_lost(now);
        let mut batch = Vec::new();
        let mut chosen = HashSet::new();
        let mut room = self.budget;
        while room > 0 {
            let mut turns: Vec<u64> =
                self.requests.iter().filter(|(_, request)| request.has_turn()).map(|(id, _)| *id).collect();
            if turns.is_empty() && !self.start_round() {
                break;
            }
            turns.sort_by(|left, right| self.requests[left].compare(&self.requests[right], now));
            for id in &turns {
                let request = self.requests.get_mut(id).expect("it has its turn");
                while request.has_turn() {
                    let place = request.pending[request.pending.len() - 1];
                    // Those whose row came with an equal sequence are not computed again.
                    if let Some(sequence) = request.sequences[place].as_ref().filter(|wanted| !chosen.contains(*wanted))
                    {
                        let tokens = sequence.tokens();
                        if tokens > room && !batch.is_empty() {
                            break;
                        }
                        room = room.saturating_sub(tokens);
                        request.deficit -= tokens as i64;
                        chosen.insert(sequence.clone());
                        batch.push(sequence.clone());
                    }
                    request.pending.pop();
                }
            }
            // Who still has its turn did not fit.
            if turns.iter().any(|id| self.requests[id].has_turn()) {
                break;
            }
        }
        batch
    }

    /// Lets every request compute again; returns whether there is any.
    fn start_round(&mut self) -> bool {
        let mut any = false;
        for request in self.requests.values_mut().filter(|request| !request.pending.is_empty()) {
            let share = match request.urgency.priority {
                Priority::Interactive => self.budget / 4,
                Priority::Bulk => self.budget / 32,
            };
            request.deficit += share.max(1) as i64;
            any = true;
        }
        any
    }

    /// Sends the row of a sequence to all who wait for it.
    pub fn deliver(&mut self, sequence: &Sequence, row: &Result<Row, Failure>) {
        for (id, place) in self.places.remove(sequence).unwrap_or_default() {
            let request = self.requests.get_mut(&id).expect("it waits");
            request.sequences[place] = None;
            request.tokens -= sequence.tokens();
            self.tokens -= sequence.tokens();
            // If nobody listens any more, the request leaves with the next batch.
            let _ = request.reply.send(Part { place, row: row.clone() });
            if request.sequences.iter().all(Option::is_none) {
                self.requests.remove(&id);
            }
        }
    }

    /// Removes the requests whose client has left or whose deadline has passed.
    fn drop_lost(&mut self, now: Instant) {
        let lost = |request: &Waiting| request.reply.is_closed() || request.urgency.is_late(now);
        let ids: Vec<u64> = self.requests.iter().filter(|(_, request)| lost(request)).map(|(id, _)| *id).collect();
        for id in ids {
            let request = self.requests.remove(&id).expect("it was just there");
            self.tokens -= request.tokens;
            request.fail(&Failure::Expired);
            for sequence in request.sequences.into_iter().flatten() {
                // The first of equal sequences has taken along the places of all.
                let Some(others) = self.places.get_mut(&sequence) else { continue };
                others.retain(|(other, _)| *other != id);
                if others.is_empty() {
                    self.places.remove(&sequence);
                }
            }
        }
    }

    /// Fails all that waits. It relies on nothing else here, for it is called when something here was wrong.
    pub fn fail(&mut self, failure: &Failure) {
        std::mem::take(&mut self.requests).values().for_each(|request| request.fail(failure));
        self.places.clear();
        self.tokens = 0;
    }
}
