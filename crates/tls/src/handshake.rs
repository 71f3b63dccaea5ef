//! What handshakes fail for.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

/// Why the other side of a connection is not spoken to, as the side that connects sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It speaks, but not TLS.
    #[error("it does not speak TLS")]
    NotTls,
    /// It speaks TLS, and was not spoken to in it.
    #[error("it speaks TLS, and was not spoken to in it")]
    SpeaksTls,
    /// Nobody who is believed has signed its certificate.
    #[error("its certificate is not signed by an authority that is trusted here")]
    Untrusted,
    /// Its certificate is that of an authority.
    #[error(
        "it shows the certificate of an authority, which is none for a server: it needs one that the authority has signed"
    )]
    OfAuthority,
    /// Its certificate is for others.
    #[error("its certificate is not for {expected}, but for {}", list(presented))]
    OtherName {
        /// The name that it was asked by.
        expected: String,
        /// The names that the certificate has.
        presented: Vec<String>,
    },
    /// Its certificate was good once.
    #[error("its certificate has expired{}", ago(*seconds))]
    Expired {
        /// How long ago, if that is known.
        seconds: Option<u64>,
    },
    /// Its certificate will be good.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// It lets only those in who show a certificate.
    #[error("it demands a client certificate")]
    Demanded,
    /// It does not let those in who show this certificate.
    #[error("it refuses the client certificate ({0})")]
    Refused(String),
    /// There is something else behind the TLS.
    #[error("it speaks TLS, but not HTTP/2 in it")]
    NoHttp2,
    /// Anything else.
    #[error("the TLS handshake failed: {0}")]
    Failed(String),
}

impl HandshakeError {
    /// A stable word that programs may branch on.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotTls => "TLS_NOT_SPOKEN",
            Self::SpeaksTls => "TLS_SPOKEN",
            Self::Untrusted | Self::OfAuthority => "TLS_UNTRUSTED",
            Self::OtherName { .. } => "TLS_OTHER_NAME",
            Self::Expired { .. } | Self::NotYetValid => "TLS_EXPIRED",
            Self::Demanded => "TLS_CERTIFICATE_DEMANDED",
            Self::Refused(_) => "TLS_CERTIFICATE_REFUSED",
            Self::NoHttp2 | Self::Failed(_) => "TLS_FAILED",
        }
    }

    /// The handshake's error somewhere in an error and its causes.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
    }

    /// What an error of the connection means; `shown` says whether this side has shown a certificate.
    pub(crate) fn of(error: &io::Error, shown: bool) -> Self {
        let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Self::Failed("it closed the connection; does it speak TLS?".to_owned()),
                _ => Self::Failed(error.to_string()),
            };
        };
        match cause {
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                Self::NotTls
            }
            TlsError::InvalidCertificate(wrong) => Self::of_certificate(wrong),
            TlsError::AlertReceived(alert) => Self::of_alert(*alert, shown),
            other => Self::Failed(other.to_string()),
        }
    }

    fn of_certificate(wrong: &CertificateError) -> Self {
        match wrong {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
            CertificateError::NotValidForNameContext { expected, presented } => {
                // As webpki writes them: `DnsName("db")`, `IpAddress(10.0.0.7)`.
                let plain = |name: &String| {
                    name.split_once('(').map_or(&**name, |(_, name)| name).trim_matches(['"', ')']).to_owned()
                };
                let presented = presented.iter().map(plain).collect();
                Self::OtherName { expected: expected.to_str().into_owned(), presented }
            }
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { seconds: Some(time.as_secs().saturating_sub(not_after.as_secs())) }
            }
            CertificateError::Expired => Self::Expired { seconds: None },
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => Self::OfAuthority,
            other => Self::Failed(format!("its certificate cannot be used: {other}")),
        }
    }

    fn of_alert(alert: AlertDescription, shown: bool) -> Self {
        use AlertDescription as Alert;
        match alert {
            Alert::CertificateRequired => Self::Demanded,
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::DecryptError
                if shown =>
            {
                Self::Refused("it says nothing further".to_owned())
            }
            Alert::CertificateExpired if shown => Self::Refused("it has expired".to_owned()),
            Alert::UnknownCA if shown => {
                Self::Refused("it is signed by none of the authorities that are trusted there".to_owned())
            }
            Alert::NoApplicationProtocol => Self::NoHttp2,
            Alert::ProtocolVersion => Self::Failed("it does not speak TLS 1.3".to_owned()),
            other => Self::Failed(format!("it said {other:?}")),
        }
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "no name at all (subjectAltName)".to_owned(),
        names => names.join(", "),
    }
}

fn ago(seconds: Option<u64>) -> String {
    const HOUR: u64 = 60 * 60;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        None => String::new(),
        Some(seconds) if seconds < HOUR => " within the last hour".to_owned(),
        Some(seconds) if seconds < 2 * DAY => format!(" {} hours ago", seconds / HOUR),
        Some(seconds) => format!(" {} days ago", seconds / DAY),
    }
}
