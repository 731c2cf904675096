//! Who an event is about: sanitised ids, `rudderId`, and the ordering key.

use md5::{Digest, Md5};
use smallvec::SmallVec;
use uuid::Uuid;

use super::printable::is_kept;

/// Removes what RudderStack's gateway removes from `messageId`, `userId` and `anonymousId`, and trims: control and format
/// characters, white space but the ASCII space, what is unassigned or for private use, and other letters that show nothing.
pub fn sanitize_id(raw: &str) -> String {
    if raw.is_ascii() && !raw.bytes().any(|b| b.is_ascii_control()) {
        return raw.trim().to_owned();
    }
    let kept: String = raw.chars().filter(|c| is_kept(*c)).collect();
    kept.trim().to_owned()
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
    fn an_id_is_the_one_that_rudderstack_makes_of_it() {
        // White space within, what shows nothing, private use, format characters, unassigned code points.
        let removed = "\t\n\u{b}\u{c}\r\u{85}\u{a0}\u{1680}\u{2000}\u{2003}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\
            \u{0}\u{1b}\u{7f}\u{9f}\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180e}\u{200b}\u{200d}\u{200f}\u{202a}\
            \u{202e}\u{2060}\u{2065}\u{206f}\u{2800}\u{3164}\u{feff}\u{ffa0}\u{fff0}\u{fff9}\u{fffb}\u{e000}\u{f8ff}\u{f0000}\
            \u{ffffd}\u{100000}\u{10fffd}\u{10ffff}\u{600}\u{605}\u{6dd}\u{70f}\u{890}\u{891}\u{8e2}\u{110bd}\u{110cd}\
            \u{13430}\u{13438}\u{1bca0}\u{1d173}\u{e0001}\u{e007f}\u{378}\u{2fffd}";
        for c in removed.chars() {
            assert_eq!(sanitize_id(&format!("a{c}b")), "ab", "{c:?}");
        }
        let kept = " !~\u{a1}äßе\u{301}ก็あ漢한🙂\u{180b}\u{180d}\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{fffd}\u{1f3fd}½€¬";
        for c in kept.chars() {
            let id = format!("a{c}b");
            assert_eq!(sanitize_id(&id), id, "{c:?}");
        }
        assert_eq!(sanitize_id("❤️"), "❤️");
        assert_eq!(sanitize_id("\u{200b} ä\u{3000} \t"), "ä");
        // The sequence that joins a family of emoji is taken apart, there too.
        assert_eq!(sanitize_id("👩\u{200d}👧"), "👩👧");
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
