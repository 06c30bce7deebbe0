//! What a foreign worker says, and what is done about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attach::{attach, expect, refused, resume_point};
use super::outbox::Outbox;
use super::session::{Attached, Begun, Found, Session};
use super::shared::Shared;
use crate::auth::TokenTenants;
use crate::domain::{OutputStream, TenantId};
use crate::protocol::worker::{FromClient, LogStream, NamedJob, RefusedWhy, Save, ToClient};
use crate::worker::context::full_jitter_backoff;

/// One socket of a session.
pub(crate) struct Conversation {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    /// The tenants of this socket's token.
    pub(crate) tenants: TokenTenants,
    pub(crate) outbox: Arc<Outbox>,
}

impl Conversation {
    /// Takes a message of so many bytes. Returns at once: what takes time is done in tasks, and nothing more is read of the
    /// client while there are many.
    pub(crate) fn take(&self, message: FromClient, bytes: usize) {
        match message {
            FromClient::Hello(_) => {
                self.error(None, "hello has been said already: it is the first message of a socket")
            }
            FromClient::Attach(wish) => self.attach(wish, bytes),
            FromClient::Expect(wish) => {
                if let Some(answer) = self.denied(wish.reference, &wish.tenant_id) {
                    self.say(answer);
                    return;
                }
                let (shared, session) = (self.shared.clone(), self.session.clone());
                let asked = self.outbox.asked(bytes);
                self.shared.ctx.spawn(async move {
                    expect(&shared, &session, wish).await;
                    drop(asked);
                });
            }
            about_a_job => self.about_a_job(about_a_job, bytes),
        }
    }

    /// A message of which a field is wrong.
    pub(crate) fn invalid(&self, reference: Option<u64>, is_attach: bool, message: &str) {
        match reference {
            Some(reference) if is_attach => self.say(refused(reference, RefusedWhy::Invalid, message, None)),
            _ => self.error(reference, message),
        }
    }

    fn say(&self, text: String) {
        self.session.link.send(text);
    }

    fn error(&self, reference: Option<u64>, message: &str) {
        self.say(ToClient::Error { reference, error: "invalid", message }.text());
    }

    fn denied(&self, reference: u64, tenant: &TenantId) -> Option<String> {
        let why = if !self.tenants.contains(tenant) {
            format!("The token is not good for tenant {tenant}")
        } else if !self.shared.ctx.serves(tenant) {
            format!("This worker does not serve tenant {tenant} (its setting worker.tenants)")
        } else {
            return None;
        };
        Some(refused(reference, RefusedWhy::Denied, &why, None))
    }

    fn attach(&self, wish: NamedJob, bytes: usize) {
        let reference = wish.reference;
        if let Some(answer) = self.denied(reference, &wish.tenant_id) {
            return self.say(answer);
        }
        let most = self.shared.ctx.settings.worker.max_jobs_per_connection;
        match self.session.begin(reference, (&wish.tenant_id, &wish.job_id), wish.run, most) {
            Begun::Ask => self.ask(wish, bytes),
            Begun::MovedAway(former) => {
                former.work.silence();
                self.shared.runs.drop_run(&self.shared.ctx, &former.run);
                self.ask(wish, bytes);
            }
            Begun::Attached(attached) => {
                attached.work.attached(&resume_point(&attached.run));
            }
            // Its answer is on its way.
            Begun::Attaching => {}
            Begun::Ended(status) => self.say(ToClient::refused_ended(reference, status)),
            Begun::AnotherJob => {
                let why = "This ref is that of another job: each job has one of its own, also after its end";
                self.say(refused(reference, RefusedWhy::Invalid, why, None));
            }
            Begun::TooMany => {
                let why = format!("This session has {most} jobs, which is as many as it may have: end some first");
                self.say(refused(reference, RefusedWhy::Invalid, &why, None));
            }
        }
    }

    /// Asks SQL for the job.
    fn ask(&self, wish: NamedJob, bytes: usize) {
        let (shared, session) = (self.shared.clone(), self.session.clone());
        let asked = self.outbox.asked(bytes);
        self.shared.ctx.spawn(async move {
            let _asked = asked;
            if let Some((attached, early)) = attach(&shared, &session, wish).await {
                for message in early {
                    attached_said(&shared, &session, &attached, message);
                }
            }
        });
    }

    fn about_a_job(&self, message: FromClient, bytes: usize) {
        let Some(reference) = message.reference() else { return };
        let is_end = matches!(message, FromClient::End(_));
        match self.session.find(reference, message, bytes) {
            Found::Attached(attached, message) => attached_said(&self.shared, &self.session, &attached, *message),
            Found::Kept => {}
            Found::TooEarly => self.error(Some(reference), "too many messages before attached: wait for it"),
            Found::Ended(status) if is_end => self.say(ToClient::Ended { reference, status: status.as_str() }.text()),
            // It crossed the news on its way.
            Found::Ended(_) => {}
            Found::Unknown => {
                self.error(Some(reference), "there is no job with this ref here: attach it first");
            }
        }
    }
}

/// What a session says about a job that it has.
fn attached_said(shared: &Arc<Shared>, session: &Arc<Session>, attached: &Attached, message: FromClient) {
    let Attached { run, work } = attached;
    match message {
        FromClient::Reached(reached) => {
            if let Err(message) = work.reached(reached) {
                session
                    .link
                    .send(ToClient::Error { reference: Some(work.reference()), error: "invalid", message }.text());
            }
        }
        FromClient::Progress(figures) => run.progress.progress(work.figures(figures)),
        FromClient::FailedItem(failed) => run.progress.failed_item(&failed.item, &failed.error),
        FromClient::Save(Save { n, point, .. }) => {
            if work.saves(n, || run.progress.save(point)) {
                shared.ctx.spawn(store_saves(attached.clone()));
            }
        }
        FromClient::Log(log) => {
            let stream = match log.stream {
                LogStream::Stdout => OutputStream::Stdout,
                LogStream::Stderr => OutputStream::Stderr,
                LogStream::Log => OutputStream::Log,
            };
            log.lines.iter().for_each(|line| run.progress.output.said(stream, line));
        }
        FromClient::End(end) => work.end(end),
        FromClient::Hello(_) | FromClient::Attach(_) | FromClient::Expect(_) => {
            tracing::debug!(session = session.key, "worker.foreign_message_misplaced");
        }
    }
}

/// Writes resume points until none is left, one write for all that have come meanwhile.
async fn store_saves(attached: Attached) {
    let Attached { run, work } = attached;
    let mut attempts = 0_u32;
    while let Some(n) = work.next_save() {
        if !run.flush().await {
            tokio::time::sleep(full_jitter_backoff(Duration::from_millis(200), Duration::from_secs(5), attempts)).await;
            attempts = attempts.saturating_add(1);
            continue;
        }
        attempts = 0;
        // Of a run that is over nothing is known to have been written.
        if run.has_exited() {
            return;
        }
        work.saved(n);
    }
}

/// Counts an open socket while it lives; `None`: there are as many as there may be.
pub(crate) struct OpenSocket(Arc<Shared>);

impl OpenSocket {
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        let most = shared.ctx.settings.worker.max_connections;
        let open = |open: usize| (open < most).then_some(open + 1);
        shared.sockets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, open).ok()?;
        Some(Self(shared.clone()))
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}
