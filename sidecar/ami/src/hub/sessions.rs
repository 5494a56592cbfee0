//! All clients, by their place; a place that was given back is used again.

use super::session::{Session, SessionId};

/// The clients.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    places: Vec<Option<Session>>,
    free: Vec<u32>,
    lives: u32,
    count: usize,
}

impl Sessions {
    pub(super) fn insert(&mut self, make: impl FnOnce(SessionId) -> Session) -> SessionId {
        self.lives = self.lives.wrapping_add(1);
        self.count += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        let id = SessionId {
            place,
            life: self.lives,
        };
        self.places[place as usize] = Some(make(id));
        id
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if self.get(id).is_some() {
            self.places[id.place as usize] = None;
            self.free.push(id.place);
            self.count -= 1;
        }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        let session = self.places.get(id.place as usize)?.as_ref();
        session.filter(|session| session.id == id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let session = self.places.get_mut(id.place as usize)?.as_mut();
        session.filter(|session| session.id == id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.places.iter_mut().flatten()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}
