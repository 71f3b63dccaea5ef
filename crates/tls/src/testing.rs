//! Certificates for tests, made anew by each of them.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// An authority that signs whatever a test asks for.
pub struct Authority {
    folder: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, whose certificate is in a file in `folder` that is named after it.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority = Self { folder: folder.to_owned(), name: name.to_owned(), issuer: Issuer::new(params, key) };
        std::fs::write(authority.path(), certificate.pem()).expect("written");
        authority
    }

    /// The file with its certificate.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Its own certificate and key, as if it were a server.
    pub fn itself(&self) -> Identity {
        let key = self.folder.join(format!("{}.key", self.name));
        std::fs::write(&key, self.issuer.key().serialize_pem()).expect("written");
        Identity { cert: self.path(), key }
    }

    /// A certificate for names or addresses, good for a server and for a client, in files that are named after `file`.
    pub fn sign(&self, file: &str, names: &[&str]) -> Identity {
        self.sign_between(file, names, (2020, 2100))
    }

    /// One that is good for some purposes alone.
    pub fn sign_for(&self, file: &str, names: &[&str], purposes: &[ExtendedKeyUsagePurpose]) -> Identity {
        self.sign_as(file, names, (2020, 2100), purposes)
    }

    /// One that is valid from the beginning of a year to that of another.
    pub fn sign_between(&self, file: &str, names: &[&str], years: (i32, i32)) -> Identity {
        self.sign_as(file, names, years, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn sign_as(
        &self,
        file: &str,
        names: &[&str],
        (from, until): (i32, i32),
        purposes: &[ExtendedKeyUsagePurpose],
    ) -> Identity {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = purposes.to_vec();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |end: &str| self.folder.join(format!("{file}.{end}"));
        let identity = Identity { cert: path("crt"), key: path("key") };
        std::fs::write(&identity.cert, certificate.pem()).expect("written");
        std::fs::write(&identity.key, key.serialize_pem()).expect("written");
        identity
    }
}
