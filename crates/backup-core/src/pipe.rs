//! A queue between async code and a thread, bounded in weight.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    task::{Poll, Waker},
};

/// A queue that holds items of at most `limit` weight, or one item of any weight.
///
/// Each end can be async or blocking. Dropping the sender without [`Sender::finish`] throws
/// away what is queued: a run that was given up has nothing more to say.
pub(crate) fn pipe<T>(limit: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            weight: 0,
            ended: false,
            refused: false,
            sender: None,
            receiver: None,
        }),
        changed: Condvar::new(),
        limit,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// The other end is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limit: usize,
}

struct State<T> {
    queue: VecDeque<(T, usize)>,
    weight: usize,
    ended: bool,
    refused: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wake(&self, waker: Option<Waker>) {
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    // Takes the item in if there is room.
    fn offer(
        &self,
        item: &mut Option<(T, usize)>,
        state: &mut State<T>,
    ) -> Option<Result<(), Closed>> {
        if state.refused {
            return Some(Err(Closed));
        }
        let weight = item.as_ref().map_or(0, |item| item.1);
        if !state.queue.is_empty() && state.weight + weight > self.limit {
            return None;
        }
        state.weight += weight;
        state.queue.extend(item.take());
        Some(Ok(()))
    }

    // `Some(None)`: there will be none.
    fn take(&self, state: &mut State<T>) -> Option<Option<T>> {
        match state.queue.pop_front() {
            Some((item, weight)) => {
                state.weight -= weight;
                Some(Some(item))
            }
            None => state.ended.then_some(None),
        }
    }
}

impl<T> Sender<T> {
    pub(crate) async fn send(&self, item: T, weight: usize) -> Result<(), Closed> {
        let mut item = Some((item, weight));
        poll_fn(|cx| {
            let mut state = self.0.lock();
            let Some(sent) = self.0.offer(&mut item, &mut state) else {
                state.sender = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let waker = state.receiver.take();
            drop(state);
            self.0.wake(waker);
            Poll::Ready(sent)
        })
        .await
    }

    pub(crate) fn send_blocking(&self, item: T, weight: usize) -> Result<(), Closed> {
        let mut item = Some((item, weight));
        let mut state = self.0.lock();
        loop {
            if let Some(sent) = self.0.offer(&mut item, &mut state) {
                let waker = state.receiver.take();
                drop(state);
                self.0.wake(waker);
                return sent;
            }
            state = self.0.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// The receiver gets what is queued, then the end.
    pub(crate) fn finish(self) {
        self.0.lock().ended = true;
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let dropped = if state.ended { VecDeque::new() } else { std::mem::take(&mut state.queue) };
        state.ended = true;
        let waker = state.receiver.take();
        drop(state);
        drop(dropped);
        self.0.wake(waker);
    }
}

impl<T> Receiver<T> {
    pub(crate) async fn recv(&self) -> Option<T> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            let Some(item) = self.0.take(&mut state) else {
                state.receiver = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let waker = state.sender.take();
            drop(state);
            self.0.wake(waker);
            Poll::Ready(item)
        })
        .await
    }

    pub(crate) fn recv_blocking(&self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = self.0.take(&mut state) {
                let waker = state.sender.take();
                drop(state);
                self.0.wake(waker);
                return item;
            }
            state = self.0.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.refused = true;
        let dropped = std::mem::take(&mut state.queue);
        let waker = state.sender.take();
        drop(state);
        drop(dropped);
        self.0.wake(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn everything_arrives_in_order_both_ways() {
        let (there, thread_end) = pipe::<u32>(10);
        let (thread_out, back) = pipe::<u32>(3);
        let worker = thread::spawn(move || {
            while let Some(n) = thread_end.recv_blocking() {
                thread_out.send_blocking(n * 2, 1).unwrap();
            }
            thread_out.finish();
        });
        let send = async move {
            for n in 0..1000 {
                // The weight is at times above the limit: such an item travels alone.
                there.send(n, n as usize % 13).await.unwrap();
            }
            there.finish();
        };
        let receive = async {
            let mut all = Vec::new();
            while let Some(n) = back.recv().await {
                all.push(n);
            }
            all
        };
        let ((), all) = block_on(futures::future::join(send, receive));
        worker.join().unwrap();
        assert_eq!(all, (0..1000).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_queued_is_bounded() {
        let (sender, receiver) = pipe::<u8>(10);
        block_on(async {
            sender.send(1, 6).await.unwrap();
            sender.send(2, 4).await.unwrap();
            let third = sender.send(3, 1);
            futures::pin_mut!(third);
            assert!(futures::poll!(&mut third).is_pending());
            assert_eq!(receiver.recv().await, Some(1));
            third.await.unwrap();
        });
    }

    #[test]
    fn a_sender_that_is_dropped_says_nothing_more_and_one_that_finished_does() {
        let (sender, receiver) = pipe::<u8>(10);
        block_on(sender.send(1, 1)).unwrap();
        drop(sender);
        assert_eq!(receiver.recv_blocking(), None);

        let (sender, receiver) = pipe::<u8>(10);
        block_on(sender.send(1, 1)).unwrap();
        sender.finish();
        assert_eq!((receiver.recv_blocking(), receiver.recv_blocking()), (Some(1), None));

        let (sender, receiver) = pipe::<u8>(10);
        drop(receiver);
        assert_eq!(block_on(sender.send(1, 1)), Err(Closed));
        assert_eq!(sender.send_blocking(1, 1), Err(Closed));
    }
}
