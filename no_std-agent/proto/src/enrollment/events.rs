//! Events that wait for `poll`. Bounded; when full the oldest is lost, since the newest says more.

use super::Event;

/// One input causes at most four events, and each is followed by draining; the rest is reserve.
const CAPACITY: usize = 8;

#[derive(Default)]
pub(super) struct Events([Option<Event>; CAPACITY]);

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        if self.0.iter().all(Option::is_some) {
            self.pop();
        }
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.rotate_left(1);
        let [.., last] = &mut self.0;
        last.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    #[test]
    fn events_come_in_order_and_the_oldest_is_lost_when_full() {
        let at = |n| Event::Postponed(Instant::from_millis(n));
        let mut events = Events::default();
        assert_eq!(events.pop(), None);
        events.push(at(1));
        events.push(at(2));
        assert_eq!((events.pop(), events.pop(), events.pop()), (Some(at(1)), Some(at(2)), None));
        for n in 0..10 {
            events.push(at(n));
        }
        assert_eq!(events.pop(), Some(at(2)));
    }
}
