//! Certificates in virtual time.

use super::*;

const NOW: i64 = 1_795_000_000;

fn names() -> Vec<String> {
    service_names("metallb-webhook-service", "metallb-system")
}

fn written(data: &SecretData, trusted: &[u8], now: i64) -> (SecretData, String) {
    match renew(data, trusted, &names(), now).expect("renewed") {
        Renewal::Write { data, why } => (data, why),
        Renewal::Keep => panic!("kept"),
    }
}

fn authorities(data: &SecretData) -> usize {
    certificates(&data[CA_CERT]).len()
}

#[test]
fn an_empty_secret_gets_an_authority_and_a_leaf_for_every_name() {
    let (data, why) = written(&SecretData::new(), b"", NOW);
    assert_eq!(why, "tls.key is not there");
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["ca.crt", "ca.key", "tls.crt", "tls.key"]
    );
    assert_eq!(
        renew(&data, b"", &names(), NOW).expect("good"),
        Renewal::Keep
    );
    let other = service_names("metallb-webhook-service", "other");
    assert!(
        judge(&data, &other, NOW, 0)
            .unwrap_err()
            .contains("does not serve metallb-webhook-service.other.svc")
    );
}

#[test]
fn ten_years_pass() {
    let (mut data, _) = written(&SecretData::new(), b"", NOW);
    let first = data.clone();
    let (mut leaves, mut authorities_made) = (0, 0);
    for day in 0..4000 {
        let now = NOW + day * DAY;
        // The API server is never given a leaf that is not valid by its bundle.
        judge(&data, &names(), now, 0).unwrap_or_else(|why| panic!("day {day}: {why}"));
        if let Renewal::Write { data: next, .. } =
            renew(&data, b"", &names(), now).expect("renewed")
        {
            // Who has not read the Secret yet serves the old leaf: the new bundle trusts it.
            let mut mixed = data.clone();
            mixed.insert(CA_CERT.to_owned(), next[CA_CERT].clone());
            judge(&mixed, &names(), now, 0).unwrap_or_else(|why| panic!("day {day}: {why}"));
            leaves += 1;
            if next[CA_KEY] != data[CA_KEY] {
                authorities_made += 1;
            }
            data = next;
        }
    }
    assert_eq!(leaves, 4000 / (LEAF_DAYS - AHEAD_DAYS), "one in 275 days");
    assert_eq!(authorities_made, 1);
    assert_eq!(authorities(&data), 1, "the first one is over");
    assert!(judge(&first, &names(), NOW + 4000 * DAY, 0).is_err());
}

#[test]
fn renewal_comes_ahead_of_the_end() {
    let (data, _) = written(&SecretData::new(), b"", NOW);
    let end = validity(&first_certificate(&data[TLS_CERT]).expect("leaf"))
        .expect("validity")
        .not_after;
    let last_good = end - AHEAD_DAYS * DAY;
    assert_eq!(
        renew(&data, b"", &names(), last_good).expect("good"),
        Renewal::Keep
    );
    let (next, why) = written(&data, b"", last_good + 1);
    assert_eq!(why, "tls.crt ends in 89 days");
    assert_eq!(next[CA_CERT], data[CA_CERT], "by the same authority");
    assert_ne!(next[TLS_CERT], data[TLS_CERT]);
}

#[test]
fn what_the_api_server_trusts_stays_trusted_when_the_secret_is_emptied() {
    let (data, _) = written(&SecretData::new(), b"", NOW);
    let (next, _) = written(&SecretData::new(), &data[CA_CERT], NOW);
    assert_eq!(authorities(&next), 2);
    let mut mixed = data;
    mixed.insert(CA_CERT.to_owned(), next[CA_CERT].clone());
    judge(&mixed, &names(), NOW, 0).expect("the old leaf is still trusted");
}

#[test]
fn what_is_broken_is_made_anew_and_says_why() {
    let (good, _) = written(&SecretData::new(), b"", NOW);
    let (other, _) = written(&SecretData::new(), b"", NOW);
    let cases: [(&str, &[u8], &str); 6] = [
        (TLS_KEY, b"", "tls.key is not there"),
        (TLS_KEY, b"rubbish", "tls.key cannot be used"),
        (TLS_KEY, &other[TLS_KEY], "tls.key cannot be used"),
        (TLS_CERT, b"rubbish", "tls.crt cannot be used"),
        (CA_CERT, b"", "ca.crt is not there"),
        (CA_CERT, &other[CA_CERT], "tls.crt does not serve"),
    ];
    for (part, bytes, expected) in cases {
        let mut data = good.clone();
        data.insert(part.to_owned(), bytes.to_vec());
        let (next, why) = written(&data, b"", NOW);
        assert!(why.starts_with(expected), "{why}");
        assert_eq!(
            renew(&next, b"", &names(), NOW).expect("good"),
            Renewal::Keep
        );
    }
    // Without its key the authority cannot sign: the next one is put in front of it.
    let mut data = good.clone();
    data.insert(CA_KEY.to_owned(), Vec::new());
    assert_eq!(
        renew(&data, b"", &names(), NOW).expect("good"),
        Renewal::Keep
    );
    data.insert(TLS_KEY.to_owned(), Vec::new());
    let (next, _) = written(&data, b"", NOW);
    assert_eq!(authorities(&next), 2);
}

#[test]
fn errors_show_no_key() {
    let (data, _) = written(&SecretData::new(), b"", NOW);
    let error = certified_key(&data[TLS_CERT], &data[TLS_CERT]).expect_err("no key");
    assert!(!error.to_string().contains("BEGIN"), "{error}");
}
