//! RudderStack's `WEBHOOK`: the event as JSON to a URL.

mod config;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use self::config::WebhookConfig;
use super::{Attempt, ConfigProblem, Delivering, Destination, HttpClient, Kind, response};

/// The registry's entry.
pub(super) const KIND: Kind = Kind {
    name: "WEBHOOK",
    summary: "Sends each event as JSON to a URL",
    example: r#"{
        "webhookUrl": "https://example.com/events",
        "webhookMethod": "POST",
        "headers": [{"from": "Authorization", "to": "Bearer TOKEN"}]
    }"#,
    build,
};

fn build(settings: &Value, http: &HttpClient) -> Result<Arc<dyn Destination>, ConfigProblem> {
    Ok(Arc::new(Webhook {
        config: WebhookConfig::read(settings)?,
        http: http.clone(),
    }))
}

#[derive(Debug)]
struct Webhook {
    config: WebhookConfig,
    http: HttpClient,
}

impl Destination for Webhook {
    fn deliver<'a>(&'a self, attempt: &'a Attempt<'a>) -> Delivering<'a> {
        Box::pin(async move {
            let request = request::build(&self.config, &attempt.delivery.envelope)?;
            let answer = self
                .http
                .send(attempt, request, &self.config.secrets)
                .await?;
            response::classify(answer)
        })
    }
}
