//! Who an event is about: sanitised ids, `rudderId`, and the ordering key.

use md5::{Digest, Md5};
use smallvec::SmallVec;
use uuid::Uuid;

/// Removes what cannot be seen and trims, as RudderStack's gateway does with `messageId`, `userId` and `anonymousId`:
/// control and format characters, other invisible code points, and surrounding white space.
pub fn sanitize_id(raw: &str) -> String {
    if raw.is_ascii() && !raw.bytes().any(|b| b.is_ascii_control()) {
        return raw.trim().to_owned();
    }
    let visible: String = raw.chars().filter(|c| !is_invisible(*c)).collect();
    visible.trim().to_owned()
}

/// Code points of Unicode's categories Cc and Cf and the blank letters that render as nothing.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' // Cc but white space
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// RudderStack's `rudderId`: the MD5 of `userId:anonymousId` as a UUID with version 4 and the RFC 4122 variant forced.
pub fn rudder_id(user_id: &str, anonymous_id: &str) -> Uuid {
    let mut hash = Md5::new();
    hash.update(user_id.as_bytes());
    hash.update(b":");
    hash.update(anonymous_id.as_bytes());
    let digest: [u8; 16] = hash.finalize().into();
    uuid::Builder::from_bytes(digest)
        .with_version(uuid::Version::Random)
        .with_variant(uuid::Variant::RFC4122)
        .into_uuid()
}

/// Kafka key of an event. Events of one key keep their order all the way to every destination.
///
/// RudderStack orders by the triple (`AnonymousId` request header, `anonymousId`, `userId`). Ours is coarser, so
/// everything RudderStack keeps in order stays in order, and a user who is known keeps it across devices and clients:
/// `userId`, else `anonymousId`, else the header, else the event's own id.
pub fn ordering_key<'a>(
    user_id: &'a str,
    anonymous_id: &'a str,
    header: &'a str,
    message_id: &'a str,
) -> &'a str {
    [user_id, anonymous_id, header]
        .into_iter()
        .find(|id| !id.is_empty())
        .unwrap_or(message_id)
}

/// The 16 bytes under which an event is remembered for dedup: XXH3-128 of source and message id.
///
/// 128 bits keep the chance of two of a billion ids in one window meeting under 2^-68.
pub fn event_key(source_id: &str, message_id: &str) -> u128 {
    let mut joined: SmallVec<[u8; 128]> = SmallVec::from_slice(source_id.as_bytes());
    joined.push(0);
    joined.extend_from_slice(message_id.as_bytes());
    twox_hash::XxHash3_128::oneshot(&joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rudder_id_matches_the_published_vector() {
        assert_eq!(
            rudder_id("identified_user_id", "anonymousId_1").to_string(),
            "e4cab80e-2f0e-4fa2-87e0-3a4af182634c"
        );
    }

    #[test]
    fn invisible_characters_do_not_make_a_new_user() {
        assert_eq!(sanitize_id(" \u{200b}u\u{feff}1\u{0}\n"), "u1");
        assert_eq!(sanitize_id("u1"), "u1");
        assert_eq!(sanitize_id("\u{200b}"), "");
    }

    #[test]
    fn a_known_user_keeps_the_key_on_every_device() {
        assert_eq!(ordering_key("u", "a1", "", "m"), "u");
        assert_eq!(ordering_key("u", "a2", "h", "m"), "u");
        assert_eq!(ordering_key("", "a", "h", "m"), "a");
        assert_eq!(ordering_key("", "", "", "m"), "m");
    }

    #[test]
    fn equal_message_ids_of_two_sources_are_two_events() {
        assert_ne!(event_key("a", "bc"), event_key("ab", "c"));
    }
}
