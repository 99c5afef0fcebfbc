//! SASL PLAIN (RFC 4616) in Kafka's frames (KIP-43, KIP-152).

use super::connection::{Close, Session};
use super::convert::text;
use crate::wire::ErrorCode;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kiln_auth::sasl::Plain;
use kiln_auth::{Identity, LoginError};

const MECHANISM: &str = "PLAIN";

/// Agrees on the mechanism; there is one, if there are users.
pub(super) fn handshake(session: &Session, request: &SaslHandshakeRequest) -> SaslHandshakeResponse {
    let mechanisms = if session.broker.inner.auth.is_some() { vec![text(MECHANISM)] } else { Vec::new() };
    let answer = SaslHandshakeResponse::default().with_mechanisms(mechanisms);
    if session.broker.inner.auth.is_none() || &*request.mechanism != MECHANISM {
        return answer.with_error_code(ErrorCode::UnsupportedSaslMechanism.code());
    }
    session.start_login();
    answer
}

/// Checks user and password. A failure is told; too many end the connection.
pub(super) async fn authenticate(
    session: &Session,
    request: SaslAuthenticateRequest,
) -> Result<SaslAuthenticateResponse, Close> {
    let answer = SaslAuthenticateResponse::default();
    if !session.is_login_started() {
        let message = Some(text("choose a mechanism first"));
        return Ok(answer.with_error_code(ErrorCode::IllegalSaslState.code()).with_error_message(message));
    }
    match check(session, &request.auth_bytes).await {
        Ok(identity) => {
            session.logged_in(identity);
            Ok(answer)
        }
        Err(reason) => {
            tracing::info!(peer = ?session.peer, reason, "login refused");
            session.login_failed()?;
            let message = Some(text(reason));
            Ok(answer.with_error_code(ErrorCode::SaslAuthenticationFailed.code()).with_error_message(message))
        }
    }
}

async fn check(session: &Session, message: &[u8]) -> Result<Identity, String> {
    let auth = session.broker.inner.auth.as_ref().ok_or_else(|| "there are no users".to_owned())?;
    let plain = Plain::parse(message).map_err(|error| error.to_string())?;
    let login = auth.login(plain.user, plain.password.expose(), session.peer).await;
    login.map_err(|error| match error {
        // Whoever asks need not know which of the two is wrong, nor of our troubles.
        LoginError::Credentials(_) => "user or password is wrong".into(),
        LoginError::LoopbackOnly(_) => error.to_string(),
        LoginError::Read(_) | LoginError::Closed => "logins are not possible now".into(),
    })
}
