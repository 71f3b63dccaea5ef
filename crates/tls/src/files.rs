//! Certificates and keys in PEM files.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, RootCertStore};

use crate::provider;

/// Far more than all authorities of the world take.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What a program can be told about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Authorities whose certificates are believed.
    Ca,
    /// Authorities whose client certificates are demanded and believed.
    ClientCa,
    /// The own certificate, with those that lead to its authority.
    Cert,
    /// The secret key of the own certificate.
    Key,
    /// The name that the other side's certificate must be for.
    Name,
}

impl Setting {
    /// The end of the flags and fields that are called so: `--tls-ca`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::ClientCa => "client-ca",
            Self::Cert => "cert",
            Self::Key => "key",
            Self::Name => "name",
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct SettingError {
    /// Which one.
    pub setting: Setting,
    /// What is wrong with it, with the file's name. Never what is in a key.
    pub why: String,
}

impl SettingError {
    pub(crate) fn new(setting: Setting, why: impl Into<String>) -> Self {
        Self { setting, why: why.into() }
    }

    fn of_file(setting: Setting, path: &Path, why: impl fmt::Display) -> Self {
        Self::new(setting, format!("{}: {why}", path.display()))
    }
}

/// What files held, by which is seen whether they hold something else now. A key is as new as its certificate.
#[derive(PartialEq)]
pub(crate) struct Seen {
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<TrustAnchor<'static>>,
}

impl Seen {
    pub(crate) fn of(identity: Option<&CertifiedKey>, authorities: Option<&RootCertStore>) -> Self {
        let chain = identity.map(|identity| identity.cert.clone()).unwrap_or_default();
        Self { chain, authorities: authorities.map(|roots| roots.roots.clone()).unwrap_or_default() }
    }
}

/// What was made of files, and what they held.
pub(crate) struct Loaded<T> {
    pub(crate) made: T,
    pub(crate) seen: Seen,
}

/// Puts what was read again in the place of what was read before, if the files hold something else; whether they do.
pub(crate) fn replace<T>(present: &ArcSwap<Loaded<T>>, loaded: Loaded<T>) -> bool {
    let is_new = loaded.seen != present.load().seen;
    if is_new {
        present.store(Arc::new(loaded));
    }
    is_new
}

/// The authorities of a file.
pub(crate) fn authorities(setting: Setting, path: &Path) -> Result<RootCertStore, SettingError> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates(setting, path)?.into_iter().enumerate() {
        let wrong = |error| {
            let why = format!("its certificate number {} cannot be read as one ({error})", number + 1);
            SettingError::of_file(setting, path, why)
        };
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

/// The authorities that the system trusts.
pub(crate) fn authorities_of_system() -> Result<RootCertStore, SettingError> {
    let mut roots = RootCertStore::empty();
    // Systems have some that nobody can read any more.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "this system names no authorities (the package ca-certificates would): name a file with some";
        return Err(SettingError::new(Setting::Ca, why));
    }
    Ok(roots)
}

/// A certificate with those that lead to its authority, and its key.
pub(crate) fn identity(cert: &Path, key: &Path) -> Result<CertifiedKey, SettingError> {
    let chain = certificates(Setting::Cert, cert)?;
    let key_file = |why: &str| SettingError::of_file(Setting::Key, key, why);
    let secret = read(Setting::Key, key)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| match error {
        PemError::NoItemsFound if has_block(&secret, "ENCRYPTED PRIVATE KEY") => {
            key_file("the key is encrypted, and nobody is there to be asked for the password: expected one that is not")
        }
        PemError::NoItemsFound if has_block(&secret, "CERTIFICATE") => {
            key_file("holds a certificate and no key: were the two files swapped?")
        }
        PemError::NoItemsFound => key_file("holds no secret key in PEM (-----BEGIN PRIVATE KEY-----)"),
        // What the error quotes may be the key.
        _ => key_file("is not sound PEM: it may be cut off or damaged"),
    })?;
    CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| match error {
        TlsError::InconsistentKeys(_) => {
            key_file(&format!("the key does not belong to the certificate in {}", cert.display()))
        }
        TlsError::InvalidCertificate(error) => {
            SettingError::of_file(Setting::Cert, cert, format!("its first certificate cannot be read as one ({error})"))
        }
        _ => key_file("the key is of no kind that is supported: expected ECDSA, Ed25519 or RSA"),
    })
}

fn certificates(setting: Setting, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let text = read(setting, path)?;
    let wrong = |why: &str| SettingError::of_file(setting, path, why);
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("is not sound PEM: it may be cut off or damaged"))?;
    match found.is_empty() {
        true if has_block(&text, "PRIVATE KEY") => {
            Err(wrong("holds a key and no certificate: were the two files swapped?"))
        }
        true => Err(wrong("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")),
        false => Ok(found),
    }
}

fn has_block(text: &[u8], kind: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind))
}

fn read(setting: Setting, path: &Path) -> Result<Vec<u8>, SettingError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| SettingError::of_file(setting, path, format!("cannot be read ({error})")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let why = format!("has more than {MAX_FILE_BYTES} bytes, which is more than certificates take");
        return Err(SettingError::of_file(setting, path, why));
    }
    Ok(bytes)
}
