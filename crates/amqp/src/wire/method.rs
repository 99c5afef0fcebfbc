//! The methods of AMQP 0-9-1 with `RabbitMQ`'s extensions, as one table.
#![expect(missing_docs, reason = "methods and arguments carry the specification's names and meaning")]

use bytes::{BufMut, Bytes, BytesMut};

use super::reader::{DecodeError, Reader, Wire};
use super::short::ShortStr;
use super::table::Table;

/// Which method: class id and method id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MethodId {
    pub class: u16,
    pub method: u16,
}

impl MethodId {
    /// No method in particular: what `close` carries when no method is to blame.
    pub const NONE: Self = Self { class: 0, method: 0 };
}

/// Each entry: name, (class, method), arguments before the packed bits, the bits, arguments after them. No method
/// has bits in two places.
macro_rules! methods {
    ($($name:ident = ($class:literal, $method:literal)
        { $($pre:ident: $pre_ty:ty),* } [ $($bit:ident),* ] { $($post:ident: $post_ty:ty),* };)*) => {
        $(
            #[derive(Debug, Clone, Default, PartialEq)]
            pub struct $name {
                $(pub $pre: $pre_ty,)*
                $(pub $bit: bool,)*
                $(pub $post: $post_ty,)*
            }

            impl $name {
                pub const ID: MethodId = MethodId { class: $class, method: $method };
                const BITS: usize = { let names: &[&str] = &[$(stringify!($bit)),*]; names.len() };

                fn get(_from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                    $(let $pre = Wire::get(_from)?;)*
                    let mut _octet = if Self::BITS > 0 { u8::get(_from)? } else { 0 };
                    $(let $bit = _octet & 1 != 0; _octet >>= 1;)*
                    $(let $post = Wire::get(_from)?;)*
                    Ok(Self { $($pre,)* $($bit,)* $($post,)* })
                }

                fn put(&self, _to: &mut BytesMut) {
                    $(self.$pre.put(_to);)*
                    if Self::BITS > 0 {
                        let mut _mask = 1u8;
                        let mut _octet = 0u8;
                        $(if self.$bit { _octet |= _mask; } _mask = _mask.wrapping_shl(1);)*
                        _to.put_u8(_octet);
                    }
                    $(self.$post.put(_to);)*
                }
            }

            impl From<$name> for Method {
                fn from(method: $name) -> Self {
                    Self::$name(method)
                }
            }
        )*

        /// Any method.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Method {
            $($name($name),)*
        }

        impl Method {
            /// Decodes class id, method id and arguments. Octets after the last argument are ignored, as
            /// `RabbitMQ` does.
            pub fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let (class, method) = (u16::get(from)?, u16::get(from)?);
                match (class, method) {
                    $(($class, $method) => $name::get(from).map(Self::$name),)*
                    _ => Err(DecodeError::UnknownMethod { class, method }),
                }
            }

            /// Appends class id, method id and arguments.
            pub fn put(&self, to: &mut BytesMut) {
                let id = self.id();
                to.put_u16(id.class);
                to.put_u16(id.method);
                match self {
                    $(Self::$name(method) => method.put(to),)*
                }
            }

            /// Class and method id.
            pub fn id(&self) -> MethodId {
                match self {
                    $(Self::$name(_) => $name::ID,)*
                }
            }
        }
    };
}

methods! {
    ConnectionStart = (10, 10)
        { version_major: u8, version_minor: u8, server_properties: Table, mechanisms: Bytes, locales: Bytes } [] {};
    ConnectionStartOk = (10, 11)
        { client_properties: Table, mechanism: ShortStr, response: Bytes, locale: ShortStr } [] {};
    ConnectionSecure = (10, 20) { challenge: Bytes } [] {};
    ConnectionSecureOk = (10, 21) { response: Bytes } [] {};
    ConnectionTune = (10, 30) { channel_max: u16, frame_max: u32, heartbeat: u16 } [] {};
    ConnectionTuneOk = (10, 31) { channel_max: u16, frame_max: u32, heartbeat: u16 } [] {};
    ConnectionOpen = (10, 40) { vhost: ShortStr, capabilities: ShortStr } [insist] {};
    ConnectionOpenOk = (10, 41) { known_hosts: ShortStr } [] {};
    ConnectionClose = (10, 50) { code: u16, text: ShortStr, class: u16, method: u16 } [] {};
    ConnectionCloseOk = (10, 51) {} [] {};
    ConnectionBlocked = (10, 60) { reason: ShortStr } [] {};
    ConnectionUnblocked = (10, 61) {} [] {};
    ConnectionUpdateSecret = (10, 70) { new_secret: Bytes, reason: ShortStr } [] {};
    ConnectionUpdateSecretOk = (10, 71) {} [] {};

    ChannelOpen = (20, 10) { out_of_band: ShortStr } [] {};
    ChannelOpenOk = (20, 11) { channel_id: Bytes } [] {};
    ChannelFlow = (20, 20) {} [active] {};
    ChannelFlowOk = (20, 21) {} [active] {};
    ChannelClose = (20, 40) { code: u16, text: ShortStr, class: u16, method: u16 } [] {};
    ChannelCloseOk = (20, 41) {} [] {};

    ExchangeDeclare = (40, 10) { ticket: u16, exchange: ShortStr, kind: ShortStr }
        [passive, durable, auto_delete, internal, no_wait] { arguments: Table };
    ExchangeDeclareOk = (40, 11) {} [] {};
    ExchangeDelete = (40, 20) { ticket: u16, exchange: ShortStr } [if_unused, no_wait] {};
    ExchangeDeleteOk = (40, 21) {} [] {};
    ExchangeBind = (40, 30) { ticket: u16, destination: ShortStr, source: ShortStr, routing_key: ShortStr }
        [no_wait] { arguments: Table };
    ExchangeBindOk = (40, 31) {} [] {};
    ExchangeUnbind = (40, 40) { ticket: u16, destination: ShortStr, source: ShortStr, routing_key: ShortStr }
        [no_wait] { arguments: Table };
    ExchangeUnbindOk = (40, 51) {} [] {};

    QueueDeclare = (50, 10) { ticket: u16, queue: ShortStr }
        [passive, durable, exclusive, auto_delete, no_wait] { arguments: Table };
    QueueDeclareOk = (50, 11) { queue: ShortStr, message_count: u32, consumer_count: u32 } [] {};
    QueueBind = (50, 20) { ticket: u16, queue: ShortStr, exchange: ShortStr, routing_key: ShortStr }
        [no_wait] { arguments: Table };
    QueueBindOk = (50, 21) {} [] {};
    QueuePurge = (50, 30) { ticket: u16, queue: ShortStr } [no_wait] {};
    QueuePurgeOk = (50, 31) { message_count: u32 } [] {};
    QueueDelete = (50, 40) { ticket: u16, queue: ShortStr } [if_unused, if_empty, no_wait] {};
    QueueDeleteOk = (50, 41) { message_count: u32 } [] {};
    QueueUnbind = (50, 50) { ticket: u16, queue: ShortStr, exchange: ShortStr, routing_key: ShortStr }
        [] { arguments: Table };
    QueueUnbindOk = (50, 51) {} [] {};

    BasicQos = (60, 10) { prefetch_size: u32, prefetch_count: u16 } [global] {};
    BasicQosOk = (60, 11) {} [] {};
    BasicConsume = (60, 20) { ticket: u16, queue: ShortStr, consumer_tag: ShortStr }
        [no_local, no_ack, exclusive, no_wait] { arguments: Table };
    BasicConsumeOk = (60, 21) { consumer_tag: ShortStr } [] {};
    BasicCancel = (60, 30) { consumer_tag: ShortStr } [no_wait] {};
    BasicCancelOk = (60, 31) { consumer_tag: ShortStr } [] {};
    BasicPublish = (60, 40) { ticket: u16, exchange: ShortStr, routing_key: ShortStr } [mandatory, immediate] {};
    BasicReturn = (60, 50) { code: u16, text: ShortStr, exchange: ShortStr, routing_key: ShortStr } [] {};
    BasicDeliver = (60, 60) { consumer_tag: ShortStr, delivery_tag: u64 } [redelivered]
        { exchange: ShortStr, routing_key: ShortStr };
    BasicGet = (60, 70) { ticket: u16, queue: ShortStr } [no_ack] {};
    BasicGetOk = (60, 71) { delivery_tag: u64 } [redelivered]
        { exchange: ShortStr, routing_key: ShortStr, message_count: u32 };
    BasicGetEmpty = (60, 72) { cluster_id: ShortStr } [] {};
    BasicAck = (60, 80) { delivery_tag: u64 } [multiple] {};
    BasicReject = (60, 90) { delivery_tag: u64 } [requeue] {};
    BasicRecoverAsync = (60, 100) {} [requeue] {};
    BasicRecover = (60, 110) {} [requeue] {};
    BasicRecoverOk = (60, 111) {} [] {};
    BasicNack = (60, 120) { delivery_tag: u64 } [multiple, requeue] {};

    ConfirmSelect = (85, 10) {} [no_wait] {};
    ConfirmSelectOk = (85, 11) {} [] {};

    TxSelect = (90, 10) {} [] {};
    TxSelectOk = (90, 11) {} [] {};
    TxCommit = (90, 20) {} [] {};
    TxCommitOk = (90, 21) {} [] {};
    TxRollback = (90, 30) {} [] {};
    TxRollbackOk = (90, 31) {} [] {};
}
