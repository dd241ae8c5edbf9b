//! One load for all who want the same at the same time.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::value::Value;
use crate::error::AppError;

/// A load under way, and then what came of it. If whoever does it hangs up, another one of those who wait
/// begins anew.
type Flight = OnceCell<Result<Value, AppError>>;

/// The loads of this process, by key, and how many are in each.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<String, (Arc<Flight>, usize)>>);

/// A seat in one of them. The last to leave, and whoever leaves one that has landed, takes it off the list.
pub(super) struct Seat<'a> {
    flights: &'a Flights,
    key: &'a str,
    flight: Arc<Flight>,
}

impl Flights {
    /// Joins the flight for `key`, or begins one.
    pub fn join<'a>(&'a self, key: &'a str) -> Seat<'a> {
        let mut list = self.list();
        let (flight, seats) = list.entry(key.to_owned()).or_default();
        *seats += 1;
        Seat { flights: self, key, flight: flight.clone() }
    }

    fn list(&self) -> MutexGuard<'_, HashMap<String, (Arc<Flight>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Seat<'_> {
    type Target = Flight;

    fn deref(&self) -> &Flight {
        &self.flight
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut list = self.flights.list();
        let listed = list.get_mut(self.key).filter(|(listed, _)| Arc::ptr_eq(listed, &self.flight));
        let Some((_, seats)) = listed else { return };
        *seats -= 1;
        if *seats == 0 || self.flight.initialized() {
            list.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::future::join_all;

    use super::*;
    use crate::{error, http::caching::Tagged};

    #[tokio::test]
    async fn all_who_wait_get_what_one_has_loaded_and_nothing_is_kept() {
        let (flights, loads) = (Flights::default(), Mutex::new(0));
        let ask = async |fail: bool| {
            let seat = flights.join("key");
            let load = async || {
                *loads.lock().unwrap() += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
                if fail {
                    Err(error::OVERLOADED.into())
                } else {
                    Ok(Value { version: 1, tagged: Tagged::new(Bytes::new()) })
                }
            };
            seat.get_or_init(load).await.clone().map_err(|error| error.kind())
        };
        let failed = join_all((0..200).map(|_| ask(true))).await;
        assert!(failed.iter().all(|answer| answer == &Err(error::OVERLOADED)), "each is told why");
        let landed = join_all((0..200).map(|_| ask(false))).await;
        assert!(landed.iter().all(Result::is_ok), "a failure is not kept");
        assert_eq!(*loads.lock().unwrap(), 2);
        // Whoever hangs up leaves the work to the others, and nothing behind.
        let hasty = tokio::time::timeout(Duration::from_millis(1), ask(false));
        let (gone, patient) = tokio::join!(hasty, ask(false));
        assert!(gone.is_err() && patient.is_ok());
        let _ = tokio::time::timeout(Duration::from_millis(1), ask(false)).await;
        assert!(flights.list().is_empty());
    }
}
