//! What a worker does with one stored event, in one transaction: read everything known about its
//! call, fold it, find or create the service request, store the call, mark the event.
//!
//! Safe to repeat: an event is marked in the transaction that has its effect, so a crash either
//! undoes both or neither. Order does not matter: facts come from the set of events, and as long as a
//! call has no request, each event decides anew, under locks on the call and on the client, whether it
//! gets one or waits in triage.

use std::panic::AssertUnwindSafe;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use opentelemetry::KeyValue;
use serde_json::json;
use tracing::{Instrument, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    facts::{self, CallFacts, CallResult, Direction},
    model::Triage,
    providers::{self, CallEvent, Provider},
    recordings,
    store::{self, CallRow, InboxEvent},
};
use crate::{
    app::App,
    db::{DbError, Tx},
    error::describe,
    phone,
    requests::{
        self,
        flow::{self, Effect},
        model::{EventKind as RequestEventKind, Source},
        store::{NewEvent, NewRow},
    },
    telemetry::{labels::WebhookOutcome, metrics::Metrics, trace},
};

/// Whether there was something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An event was dealt with.
    Worked,
    /// The inbox is empty, or others hold what is in it.
    Idle,
}

/// Deals with the oldest pending event.
///
/// # Errors
/// When the database cannot be used; the event stays pending. An event that fails while others could
/// succeed is postponed, so that it does not hold them up; if that is its own fault and not that of a
/// busy row, it is given up after the configured number of attempts.
pub async fn process_next(app: &App) -> Result<Progress, DbError> {
    let mut tx = app.reserved.begin().await?;
    let Some(event) = store::claim_event(&mut tx, app.clock.now()).await? else {
        return Ok(Progress::Idle);
    };
    let span = info_span!(
        target: "switchboard::inbox",
        "webhook event",
        otel.name = format!("process {} {}", event.provider.as_str(), event.kind),
        otel.kind = "consumer",
        otel.status_code = Empty,
        messaging.operation.name = "process",
        messaging.message.id = event.id,
    );
    if let Some(stored_by) = event.traceparent.as_deref().and_then(trace::parse_traceparent) {
        span.add_link_with_attributes(stored_by, vec![KeyValue::new("switchboard.link", "stored by")]);
    }
    // An event that makes the worker panic would be the first again for the next one, and for ever.
    let outcome = AssertUnwindSafe(process(app, tx, &event)).catch_unwind().instrument(span.clone()).await;
    let (message, own_fault) = match outcome {
        Ok(Ok(())) => return Ok(Progress::Worked),
        Ok(Err(error)) if error.is_outage() => {
            span.record("otel.status_code", "ERROR");
            return Err(error);
        }
        Ok(Err(error)) => (describe(&error), !error.is_transient()),
        Err(_) => ("it made the worker panic".to_owned(), true),
    };
    span.record("otel.status_code", "ERROR");
    put_off(app, &event, message, own_fault).instrument(span).await?;
    Ok(Progress::Worked)
}

/// What an event changed, for metrics; recorded after the commit.
#[derive(Debug, Default)]
struct Changes {
    request: Vec<Effect>,
    attached: bool,
    triage: Option<Triage>,
    /// The call, when this event told that it is over.
    over: Option<CallFacts>,
}

async fn process(app: &App, mut tx: Tx, event: &InboxEvent) -> Result<(), DbError> {
    let parsed = providers::parse(event.provider, &event.kind, &event.payload);
    let (outcome, error, changes) = match parsed {
        Ok(CallEvent::Leg(leg)) => (WebhookOutcome::Processed, None, apply(app, &mut tx, event, &leg.call_key).await?),
        Ok(CallEvent::Summary(summary)) => {
            (WebhookOutcome::Processed, None, apply(app, &mut tx, event, &summary.call_key).await?)
        }
        Ok(CallEvent::Recording(notice)) if notice.ready => {
            let traceparent = event.traceparent.as_deref();
            recordings::store::note(&mut tx, event.provider, &notice, traceparent, app.clock.now()).await?;
            (WebhookOutcome::Processed, None, Changes::default())
        }
        // It is still being made.
        Ok(CallEvent::Recording(_)) => (WebhookOutcome::Ignored, None, Changes::default()),
        Err(error) => (WebhookOutcome::Failed, Some(error), Changes::default()),
    };
    let now = app.clock.now();
    store::finish_event(&mut tx, event.id, outcome.as_str(), error.as_deref(), now).await?;
    tx.commit().await?;

    if let Some(error) = error {
        tracing::warn!(target: "switchboard::inbox", event_id = event.id, provider = event.provider.as_str(), kind = event.kind, error, "a webhook event cannot be read; kept as failed");
    }
    app.metrics.webhook_events(event.provider, outcome).inc();
    app.metrics.webhook_processing_lag(event.provider).observe((now - event.received_at).as_seconds_f64().max(0.0));
    changes.record(&app.metrics, event.provider);
    Ok(())
}

async fn apply(app: &App, tx: &mut Tx, event: &InboxEvent, call_key: &str) -> Result<Changes, DbError> {
    let known = store::lock_by_key(tx, event.provider, call_key).await?.unwrap_or_default();
    // One that is as old as events are kept has lost the others, and the fact that this one came before: a
    // replay, which must not make less of what is known.
    let kept = i64::from(app.config.retention.inbox_days);
    if kept > 0 && known.received_at.is_some_and(|at| at < app.clock.now() - TimeDelta::days(kept)) {
        return Ok(Changes::default());
    }
    let events: Vec<CallEvent> = store::events_of_call(tx, event.provider, call_key)
        .await?
        .into_iter()
        .filter_map(|(kind, payload)| providers::parse(event.provider, &kind, &payload).ok())
        .collect();
    let facts = facts::fold(&events);
    let region = &app.config.telephony.region;
    let from_e164 = facts.from.as_deref().and_then(|number| phone::normalise(number, region));
    let line_e164 = facts.line.as_deref().and_then(|number| phone::normalise_line(number, region));
    let campaign = match &line_e164 {
        Some(line) => store::campaign_by_line(tx, line).await?,
        None => None,
    };

    let mut changes = Changes::default();
    let (mut request_id, mut triage) = (known.request_id, known.triage);
    if facts.direction == Direction::Incoming && request_id.is_none() {
        triage = match (&campaign, &from_e164) {
            (None, _) => Some(Triage::UnknownLine),
            (_, None) => Some(Triage::UnknownCaller),
            (Some(campaign), Some(phone)) => {
                let found = find_or_create(app, tx, event.received_at, campaign, phone, call_key, &mut changes).await?;
                request_id = Some(found);
                None
            }
        };
        // Counted when it enters triage, not again with each of its events.
        changes.triage = triage.filter(|_| known.triage.is_none());
    }
    let row = CallRow {
        provider: event.provider,
        call_key,
        facts: &facts,
        from_e164: from_e164.as_deref(),
        line_e164: line_e164.as_deref(),
        request_id,
        city_id: campaign.as_ref().map(|campaign| campaign.city_id),
        campaign_id: campaign.as_ref().map(|campaign| campaign.id),
        triage,
        received_at: event.received_at,
    };
    store::upsert(tx, &row).await?;
    if facts.result.is_some() && !known.is_over {
        changes.over = Some(facts);
    }
    Ok(changes)
}

/// The open request of this client that the call joins, or a new one. The client's row is locked, so
/// two calls at once cannot both create one. Times are those of the intake: a worker that was down
/// for an hour must not turn old calls into fresh ones, or two visits into one.
async fn find_or_create(
    app: &App,
    tx: &mut Tx,
    received_at: DateTime<Utc>,
    campaign: &store::LineCampaign,
    phone: &str,
    call_key: &str,
    changes: &mut Changes,
) -> Result<i64, DbError> {
    let client_id = requests::store::upsert_client(tx, phone, received_at).await?;
    let window = TimeDelta::seconds(i64::from(app.config.telephony.dedupe_window_s));
    if let Some(open) = requests::store::open_of_client(tx, client_id, received_at - window).await? {
        let attached = NewEvent {
            request_id: open,
            at: received_at,
            actor_id: None,
            kind: RequestEventKind::CallAttached,
            moved: None,
            reason: None,
            diff: json!({ "call_key": [null, call_key] }),
        };
        requests::store::append_event(tx, &attached).await?;
        changes.attached = true;
        return Ok(open);
    }
    let row = NewRow {
        client_id,
        city: &campaign.city,
        kind: None,
        direction: None,
        campaign_id: Some(campaign.id),
        source: Source::Call,
        client_name: None,
        description: None,
        address: None,
        created_by: None,
        at: received_at,
    };
    let created = requests::store::insert(tx, &row).await?;
    changes.request.push(Effect::Created { source: Source::Call, kind: created.kind, city: campaign.city.clone() });
    Ok(created.id)
}

impl Changes {
    fn record(&self, metrics: &Metrics, provider: Provider) {
        flow::record(metrics, &self.request);
        if self.attached {
            metrics.calls_deduplicated(provider).inc();
        }
        match self.triage {
            Some(Triage::UnknownLine) => metrics.calls_unknown_line(provider).inc(),
            Some(Triage::UnknownCaller) => metrics.calls_unknown_caller(provider).inc(),
            None => {}
        }
        let Some(CallFacts { direction, result: Some(result), talk_seconds, wait_seconds, .. }) = &self.over else {
            return;
        };
        metrics.calls(*result, *direction).inc();
        if *result == CallResult::Answered
            && let Some(seconds) = talk_seconds
        {
            metrics.call_talk(*result, *direction).observe(as_f64(*seconds));
        }
        if let Some(seconds) = wait_seconds {
            metrics.call_answer_wait(*result, *direction).observe(as_f64(*seconds));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a call of 2^53 seconds is not expected")]
fn as_f64(seconds: i64) -> f64 {
    seconds as f64
}

async fn put_off(app: &App, event: &InboxEvent, mut message: String, own_fault: bool) -> Result<(), DbError> {
    let attempts = event.attempts + i32::from(own_fault);
    let now = app.clock.now();
    message.truncate(message.floor_char_boundary(500));
    tracing::error!(target: "switchboard::inbox", event_id = event.id, kind = event.kind, attempts, error = message, "a webhook event failed");
    let mut db = app.reserved.acquire().await?;
    if attempts >= i32::from(app.config.inbox.max_attempts) {
        let failed = WebhookOutcome::Failed;
        if store::finish_event(&mut db, event.id, failed.as_str(), Some(&message), now).await? {
            app.metrics.webhook_events(event.provider, failed).inc();
        }
        return Ok(());
    }
    let pause = TimeDelta::seconds(1 << attempts.clamp(0, 10));
    store::postpone_event(&mut db, event.id, attempts, &message, now + pause).await
}
