//! Odoo's remote calls: JSON-RPC, XML-RPC and `/json/2`, sent to a host of the caller's choice.

use anyhow::Result;
use serde_json::{Value, json};

use crate::http::{self, Answer};

/// A call of `/jsonrpc`.
///
/// # Errors
/// No answer came.
pub async fn json_rpc(url: &str, service: &str, method: &str, args: Value) -> Result<Answer> {
    let params = json!({ "service": service, "method": method, "args": args });
    let body = json!({ "jsonrpc": "2.0", "method": "call", "id": 1, "params": params });
    Answer::of(http::client()?.post(format!("{url}/jsonrpc")).json(&body)).await
}

/// A call of `/xmlrpc/2/<service>` or, with another prefix, of its older forms.
///
/// # Errors
/// No answer came.
pub async fn xml_rpc(url: &str, path: &str, method: &str, args: &Value) -> Result<Answer> {
    let params: String = args
        .as_array()
        .into_iter()
        .flatten()
        .map(|arg| format!("<param>{}</param>", xml(arg)))
        .collect();
    let body = format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
    );
    let request = http::client()?
        .post(format!("{url}{path}"))
        .header("content-type", "text/xml")
        .body(body);
    Answer::of(request).await
}

/// A call of `/json/2/<model>/<method>` with an API key.
///
/// # Errors
/// No answer came.
pub async fn json_2(
    url: &str,
    call: &str,
    key: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Answer> {
    let mut request = http::client()?
        .post(format!("{url}/json/2/{call}"))
        .bearer_auth(key)
        .json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

/// A value as XML-RPC writes it (<http://xmlrpc.com/spec.md>).
fn xml(value: &Value) -> String {
    let inner = match value {
        Value::Null => "<boolean>0</boolean>".to_owned(),
        Value::Bool(flag) => format!("<boolean>{}</boolean>", u8::from(*flag)),
        Value::Number(number) => format!("<int>{number}</int>"),
        Value::String(text) => format!("<string>{}</string>", escaped(text)),
        Value::Array(items) => format!(
            "<array><data>{}</data></array>",
            items.iter().map(xml).collect::<String>()
        ),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                format!("<member><name>{}</name>{}</member>", escaped(name), xml(value))
            });
            format!("<struct>{}</struct>", members.collect::<String>())
        }
    };
    format!("<value>{inner}</value>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
