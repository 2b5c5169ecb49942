//! Private keys under a password, as cosign keeps them: scrypt and NaCl's secretbox (go-securesystemslib, `encrypted`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_secretbox::{KeyInit, XSalsa20Poly1305, aead::Aead};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::NoRandomness;

/// The work that others accept as well: more of it would let a file take memory and time as it likes.
const KNOWN_N: [u32; 3] = [1 << 15, 1 << 16, 1 << 17];
/// What is written.
const N: u32 = 1 << 16;
const R: u32 = 8;
const P: u32 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const SALT_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Why it cannot be opened.
pub(super) enum OpenError {
    /// It is not what cosign writes.
    Malformed,
    /// The password is wrong, or the file was changed.
    WrongPassword,
}

/// Opens what [`seal`] or cosign wrote.
pub(super) fn open(bytes: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(|_| OpenError::Malformed)?;
    let Params { n, r, p } = sealed.kdf.params;
    let is_known = sealed.kdf.name == "scrypt" && sealed.cipher.name == "nacl/secretbox";
    if !is_known || !KNOWN_N.contains(&n) || r != R || p != P {
        return Err(OpenError::Malformed);
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| OpenError::Malformed);
    let nonce: [u8; NONCE_BYTES] = decode(&sealed.cipher.nonce)?.try_into().map_err(|_| OpenError::Malformed)?;
    let key = derive(password, &decode(&sealed.kdf.salt)?, n);
    let secretbox = XSalsa20Poly1305::new((&*key).into());
    let plain = secretbox.decrypt(&nonce.into(), decode(&sealed.ciphertext)?.as_slice());
    plain.map(Zeroizing::new).map_err(|_| OpenError::WrongPassword)
}

/// Seals under a password.
pub(super) fn seal(plain: &[u8], password: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    getrandom::fill(&mut salt).map_err(NoRandomness)?;
    getrandom::fill(&mut nonce).map_err(NoRandomness)?;
    let key = derive(password, &salt, N);
    let secretbox = XSalsa20Poly1305::new((&*key).into());
    let ciphertext = secretbox.encrypt(&nonce.into(), plain).expect("a key is shorter than the cipher's limit");
    let sealed = Sealed {
        kdf: Kdf { name: "scrypt".into(), params: Params { n: N, r: R, p: P }, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(ciphertext),
    };
    Ok(serde_json::to_vec(&sealed).expect("texts are JSON"))
}

fn derive(password: &[u8], salt: &[u8], n: u32) -> Zeroizing<[u8; KEY_BYTES]> {
    let log_n = u8::try_from(n.ilog2()).expect("N is one of three");
    let params = scrypt::Params::new(log_n, R, P).expect("these are legal");
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    scrypt::scrypt(password, salt, &params, key.as_mut_slice()).expect("the key has a legal length");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of go-securesystemslib, which cosign uses: `encrypted_test.go`.
    #[test]
    fn what_cosign_sealed_is_opened() {
        let cases = [
            r#"{"kdf":{"name":"scrypt","params":{"N":32768,"r":8,"p":1},"salt":"WO3mVvyTwJ9vwT5/Tk5OW5WPIBUofMjcpEfrLnfY4uA="},"cipher":{"name":"nacl/secretbox","nonce":"tCy7HcTFr4uxv4Nrg/DWmncuZ148U1MX"},"ciphertext":"08n43p5G5yviPEZpO7tPPF4aZQkWiWjkv4taFdhDBA0tamKH4nw="}"#,
            r#"{"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1},"salt":"FhzPOt9/bJG4PTq6lQ6ecG6GzaOuOy/ynG5+yRiFlNs="},"cipher":{"name":"nacl/secretbox","nonce":"aw1ng1jHaDz/tQ7V2gR9O2+IGQ8xJEuE"},"ciphertext":"HycvuLZL4sYH0BrYTh4E/H20VtAW6u5zL5Pr+IBjYLYnCPzDkq8="}"#,
        ];
        for case in cases {
            // The Go package's `Marshal` puts JSON inside: the text in base64.
            let plain = open(case.as_bytes(), b"supersecret").unwrap_or_else(|_| panic!("{case} opens"));
            assert_eq!(plain.as_slice(), format!("\"{}\"", STANDARD.encode("reallyimportant")).as_bytes());
            assert!(matches!(open(case.as_bytes(), b"supersecreT"), Err(OpenError::WrongPassword)));
        }
    }

    #[test]
    fn work_that_nobody_asks_for_is_refused_before_it_is_done() {
        let hostile = r#"{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":"AA=="},"cipher":{"name":"nacl/secretbox","nonce":"AA=="},"ciphertext":"AA=="}"#;
        assert!(matches!(open(hostile.as_bytes(), b""), Err(OpenError::Malformed)));
    }
}
