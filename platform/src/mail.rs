//! Mail to people, over SMTP. Every wait for the server has an end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;

/// Longest wait for the server, from connecting to its having taken the message.
const DEADLINE: Duration = Duration::from_secs(10);

/// Sends mail.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// An invitation to be mailed.
#[derive(Debug)]
pub struct Invitation<'i> {
    /// Whom.
    pub email: &'i str,
    /// To which organization.
    pub organization: &'i str,
    /// What accepts it.
    pub link: &'i str,
    /// Until when.
    pub expires_at: DateTime<Utc>,
}

impl Mailer {
    /// One for a server: `smtp://` (with STARTTLS where `?tls=required` or `?tls=opportunistic` says so) or `smtps://`,
    /// with user and password in the URL.
    ///
    /// # Errors
    /// The URL or the sender's address makes no sense.
    pub fn new(url: &SecretString, from: &str) -> Result<Self, Error> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
            .map_err(|_| Error::internal("SMTP_URL is not the URL of a mail server"))?
            .timeout(Some(DEADLINE))
            .build();
        Ok(Self {
            transport,
            from: from.parse().map_err(Error::internal)?,
        })
    }

    /// Mails an invitation.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the address can't be mailed to; [`Error::Unavailable`]: the server didn't take it.
    pub async fn send_invitation(&self, invitation: &Invitation<'_>) -> Result<(), Error> {
        let Invitation {
            email,
            organization,
            link,
            expires_at,
        } = invitation;
        let to: Mailbox = email.parse().map_err(|_| {
            Error::invalid(
                "/email",
                "invalid_email",
                "is no address that mail can be sent to",
            )
        })?;
        let text = format!(
            "You are invited to join {organization}.\n\n\
             To accept, open this link and choose a password:\n\n{link}\n\n\
             The link is good once, until {}. If you did not expect this message, ignore it.\n",
            expires_at.format("%-d %B %Y, %H:%M UTC")
        );
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(format!("Invitation to {organization}"))
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(Error::internal)?;
        let away = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            part: "the mail server",
            retry_after: Duration::from_secs(30),
            source,
        };
        match tokio::time::timeout(DEADLINE, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(away(error.into())),
            Err(late) => Err(away(late.into())),
        }
    }
}
