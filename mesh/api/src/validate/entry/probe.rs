//! How a registered workload is asked whether it is well.

use super::super::field::Fields;
use super::super::{name, scalar};

pub(super) fn check(fields: &Fields<'_>) {
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        fields.optional(key, scalar::positive);
    }
    fields.one_of(&["httpGet", "tcpSocket", "exec", "grpc"], true);
    fields.object("httpGet", |http| {
        http.optional("path", scalar::text);
        http.required("port", scalar::port);
        http.optional("host", name::host_or_ip);
        http.optional("scheme", scalar::one_of(&["HTTP", "HTTPS", "http", "https"]));
        http.objects("httpHeaders", 0..=usize::MAX, |header| {
            header.required("name", scalar::header_name);
            header.optional("value", scalar::text);
        });
    });
    fields.object("tcpSocket", |tcp| {
        tcp.optional("host", name::host_or_ip);
        tcp.required("port", scalar::port);
    });
    fields.object("exec", |exec| exec.list("command", 1..=usize::MAX, scalar::filled));
    fields.object("grpc", |grpc| {
        grpc.required("port", scalar::port);
        grpc.optional("service", scalar::text);
    });
}
