//! What VirtualServices do with the requests of a rule. They share the sandbox of [`crate::virtual_services`].

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::features::{Feature, Want, answered, named};
use crate::market::Market;
use crate::town::SOON;
use crate::virtual_services::with_rules;

/// One feature for each effect.
pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(virtual_service_rewrites, with_rules("vs-rewrite", REWRITE)),
        named!(virtual_service_redirects, with_rules("vs-redirect", REDIRECT)),
        named!(virtual_service_answers_itself, with_rules("vs-direct", DIRECT)),
        named!(virtual_service_edits_headers, with_rules("vs-headers", HEADERS)),
        named!(virtual_service_mirrors, with_rules("vs-mirror", MIRROR)),
        named!(virtual_service_times_out, with_rules("vs-timeout", TIMEOUT)),
        named!(virtual_service_retries, with_rules("vs-retry", RETRY)),
        named!(virtual_service_injects_faults, with_rules("vs-fault", FAULT)),
        named!(virtual_service_answers_preflights, with_rules("vs-cors", CORS)),
    ]
}

const REWRITE: &str = "
  http:
  - match: [{uri: {prefix: /old/}}]
    rewrite: {uri: /new/, authority: rewritten.example.com}
    route: [{destination: {host: vs-rewrite, subset: v1}}]
  - match: [{uri: {exact: /exact}}]
    rewrite: {uri: /whole}
    route: [{destination: {host: vs-rewrite, subset: v1}}]
  - match: [{uri: {prefix: /item}}]
    rewrite: {uriRegexRewrite: {match: '/item/(\\d+)/(.*)', rewrite: '/\\2/\\1'}}
    route: [{destination: {host: vs-rewrite, subset: v1}}]";

fn virtual_service_rewrites(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://vs-rewrite/old/a/b?c=d", Want::From("v1")),
            ("http://vs-rewrite/exact?c=d", Want::From("v1")),
            ("http://vs-rewrite/item/12/color", Want::From("v1")),
        ],
    )?;
    let paths: Vec<_> = said.iter().filter_map(|one| one.seen_maybe("/path")).collect();
    ensure!(paths == ["/new/a/b?c=d", "/whole?c=d", "/color/12"], "{paths:?}");
    let hosts: Vec<_> = said.iter().filter_map(|one| one.seen_maybe("/host")).collect();
    ensure!(hosts == ["rewritten.example.com", "vs-rewrite", "vs-rewrite"], "{hosts:?}");
    ensure!(said[0].seen("/headers/x-envoy-original-path")? == "/old/a/b?c=d", "{said:?}");
    Ok(())
}

const REDIRECT: &str = "
  http:
  - match: [{uri: {prefix: /plain}}]
    redirect: {uri: /elsewhere, authority: example.com:8443, scheme: https}
  - match: [{uri: {prefix: /code}}]
    redirect: {authority: example.com, redirectCode: 308}
  - match: [{uri: {prefix: /port}}]
    redirect: {scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}";

fn virtual_service_redirects(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://vs-redirect/plain/x?y=z", Want::Status("301")),
            ("http://vs-redirect/code/x?y=z", Want::Status("308")),
            ("http://vs-redirect:8080/port", Want::Status("301")),
            ("http://vs-redirect/none", Want::Status("404")),
        ],
    )?;
    let locations: Vec<_> = said.iter().flat_map(|one| one.header("location")).collect();
    let wanted =
        ["https://example.com:8443/elsewhere?y=z", "http://example.com/code/x?y=z", "https://vs-redirect/port"];
    ensure!(locations == wanted, "{locations:?}");
    Ok(())
}

const DIRECT: &str = "
  http:
  - match: [{uri: {prefix: /text}}]
    directResponse: {status: 503, body: {string: 'closed for today'}}
    headers: {response: {set: {x-why: holiday}}}
  - directResponse: {status: 204}";

fn virtual_service_answers_itself(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[("http://vs-direct/text", Want::Status("503")), ("http://vs-direct/", Want::Status("204"))],
    )?;
    ensure!(said[0].last()["text"] == "closed for today" && said[0].header("x-why") == ["holiday"], "{said:?}");
    Ok(())
}

const HEADERS: &str = "
  http:
  - headers:
      request: {set: {x-set: route, x-from: '%REQ(x-who)% in %PROTOCOL%'}, add: {x-add: route}, remove: [x-remove]}
      response: {set: {x-answer: route}, remove: [x-secret]}
    route:
    - destination: {host: vs-headers, subset: v1}
      headers: {request: {set: {x-set: destination, x-own: destination}}, response: {add: {x-answered: v1}}}";

fn virtual_service_edits_headers(market: &Market) -> Result<()> {
    let call = "http://vs-headers/?echo-header=x-secret:1&echo-header=x-answer:server -H x-set:a -H x-add:a \
                -H x-remove:a -H x-who:me";
    let said = &answered(market, &[(call, Want::From("v1"))])?[0];
    let seen = ["x-set", "x-add", "x-remove", "x-from", "x-own"].map(|name| said.request_header(name));
    ensure!(seen == ["route", "a,route", "", "me in HTTP/1.1", "destination"], "{seen:?}");
    let answer = ["x-answer", "x-answered", "x-secret"].map(|name| said.header(name).join(","));
    ensure!(answer == ["route", "v1", ""], "{said:?}");
    Ok(())
}

const MIRROR: &str = "
  http:
  - match: [{uri: {prefix: /half}}]
    route: [{destination: {host: vs-mirror, subset: v1}}]
    mirror: {host: shop-v2, port: {number: 80}}
    mirrorPercentage: {value: 50}
  - match: [{uri: {prefix: /none}}]
    route: [{destination: {host: vs-mirror, subset: v1}}]
    mirror: {host: shop-v2, port: {number: 80}}
    mirrorPercentage: {value: 0}
  - route: [{destination: {host: vs-mirror, subset: v1}}]
    headers: {request: {set: {x-edited: yes-it-is}}}
    mirrors: [{destination: {host: shop-v2, port: {number: 80}}}]";

/// What the second version of the shop has recorded under a name.
fn recorded(market: &Market, name: &str) -> Result<Vec<Value>> {
    let said = market.call(&[&format!("http://shop-v2/echo/recorded/{name}")])?;
    said.last()["json"].as_array().cloned().with_context(|| format!("{said:?}"))
}

fn virtual_service_mirrors(market: &Market) -> Result<()> {
    answered(market, &[("http://vs-mirror/ -X POST -d hello", Want::From("v1"))])?;
    answered(
        market,
        &[
            ("http://vs-mirror/?echo-record=vs-all -X POST -d hello -n 20", Want::From("v1")),
            ("http://vs-mirror/none?echo-record=vs-none -n 20", Want::From("v1")),
            ("http://vs-mirror/half?echo-record=vs-half -n 200 -c 4", Want::From("v1")),
        ],
    )?;
    let all = eventually("every request is mirrored", SOON, || {
        let all = recorded(market, "vs-all")?;
        ensure!(all.len() == 20, "{} of 20", all.len());
        Ok(all)
    })?;
    ensure!(all.iter().all(|one| one["body"] == "hello" && one["headers"]["x-edited"] == "yes-it-is"), "{:?}", all[0]);
    // Five standard deviations are 35.
    let half = eventually("half of the requests are mirrored", SOON, || {
        let half = recorded(market, "vs-half")?.len();
        ensure!((65..=135).contains(&half), "{half} of 200");
        Ok(half)
    })?;
    let none = recorded(market, "vs-none")?.len();
    ensure!(none == 0, "{none} mirrored where none should be, and {half} of 200");
    Ok(())
}

const TIMEOUT: &str = "
  http:
  - match: [{uri: {prefix: /short}}]
    timeout: 0.5s
    route: [{destination: {host: vs-timeout, subset: v1}}]
  - route: [{destination: {host: vs-timeout, subset: v1}}]";

fn virtual_service_times_out(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://vs-timeout/short?echo-delay=3000", Want::Status("504")),
            ("http://vs-timeout/long?echo-delay=800", Want::From("v1")),
            ("http://vs-timeout/short", Want::From("v1")),
        ],
    )?;
    let took = said[0].longest().as_millis();
    ensure!((450..1500).contains(&took), "{took} ms");
    ensure!(said[0].last()["text"] == "upstream request timeout", "{said:?}");
    Ok(())
}

const RETRY: &str = "
  http:
  - match: [{uri: {prefix: /never}}]
    retries: {attempts: 0}
    route: [{destination: {host: vs-retry, subset: v1}}]
  - match: [{uri: {prefix: /slow}}]
    timeout: 5s
    retries: {attempts: 2, perTryTimeout: 300ms, retryOn: 5xx}
    route: [{destination: {host: vs-retry, subset: v1}}]
  - retries: {attempts: 2, retryOn: 'retriable-status-codes,418,reset'}
    route: [{destination: {host: vs-retry, subset: v1}}]";

fn virtual_service_retries(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://vs-retry/a?echo-reset-first=1&echo-key=vs-a", Want::From("v1")),
            ("http://vs-retry/never?echo-reset=before", Want::Status("503")),
        ],
    )?;
    ensure!(said[1].last()["text"].as_str().is_some_and(|text| text.contains("reset")), "{said:?}");
    // A key of its own for each call, as servers count what they have answered.
    let said = answered(market, &[("http://vs-retry/b?echo-statuses=418,418,200&echo-key=vs-b", Want::From("v1"))])?;
    ensure!(said[0].seen("/headers/x-envoy-attempt-count")? == "3", "{said:?}");
    answered(
        market,
        &[
            ("http://vs-retry/c?echo-status=418", Want::Status("418")),
            ("http://vs-retry/d?echo-status=503", Want::Status("503")),
        ],
    )?;
    let said = answered(market, &[("http://vs-retry/slow?echo-delay=3000", Want::Status("504"))])?;
    let took = said[0].longest().as_millis();
    ensure!((880..2900).contains(&took), "three tries of 300 ms took {took} ms");
    Ok(())
}

const FAULT: &str = "
  http:
  - match: [{uri: {prefix: /abort}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 50}}}
    route: [{destination: {host: vs-fault, subset: v1}}]
  - match: [{uri: {prefix: /both}}]
    fault: {delay: {fixedDelay: 400ms, percentage: {value: 100}}, abort: {httpStatus: 555, percentage: {value: 100}}}
    timeout: 200ms
    route: [{destination: {host: vs-fault, subset: v1}}]
  - match: [{uri: {prefix: /shop.Till}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    route: [{destination: {host: vs-fault, subset: v1}}]
  - match: [{uri: {prefix: /nobody}}]
    fault: {abort: {httpStatus: 418}}
    route: [{destination: {host: vs-fault, subset: v1}}]";

fn virtual_service_injects_faults(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://vs-fault/both", Want::Status("555")),
            ("grpc://vs-fault:81/shop.Till/Ping", Want::Status("grpc 8")),
            // Without a percentage nobody is harmed.
            ("http://vs-fault/nobody -n 20", Want::From("v1")),
        ],
    )?;
    ensure!(said[0].longest().as_millis() >= 400, "{said:?}");
    ensure!(said[0].last()["text"] == "fault filter abort", "{said:?}");
    let said = market.call(&["http://vs-fault/abort", "-n", "200", "-c", "4"])?;
    let statuses = said.statuses();
    let [(ok, served), (fault, aborted)] = &*statuses else { anyhow::bail!("{said:?}") };
    ensure!(ok == "200" && fault == "418" && served + aborted == 200 && (65..=135).contains(aborted), "{said:?}");
    Ok(())
}

const CORS: &str = "
  http:
  - corsPolicy:
      allowOrigins: [{exact: 'https://shop.example.com'}, {regex: 'https://.*[.]trusted[.]example'}]
      allowMethods: [GET, PUT]
      allowHeaders: [x-token]
      exposeHeaders: [x-answer]
      allowCredentials: true
      maxAge: 24h
    route: [{destination: {host: vs-cors, subset: v1}}]";

fn virtual_service_answers_preflights(market: &Market) -> Result<()> {
    let preflight = |origin: &str| {
        format!("http://vs-cors/ -X OPTIONS -H origin:https://{origin} -H access-control-request-method:PUT")
    };
    let (good, other) = (preflight("shop.example.com"), preflight("evil.example.com"));
    let said = answered(
        market,
        &[
            (&good, Want::Status("200")),
            ("http://vs-cors/ -H origin:https://a.trusted.example", Want::From("v1")),
            ("http://vs-cors/ -H origin:https://evil.example.com", Want::From("v1")),
            // By default a preflight of a stranger is for the server to answer.
            (&other, Want::From("v1")),
        ],
    )?;
    ensure!(said[0].seen_maybe("/backend").is_none(), "{said:?}");
    let of = |name: &str| said[0].header(&format!("access-control-{name}")).join(",");
    let found = ["allow-origin", "allow-methods", "allow-headers", "max-age", "allow-credentials"].map(of);
    ensure!(found == ["https://shop.example.com", "GET,PUT", "x-token", "86400", "true"], "{found:?}");
    let origins: Vec<_> = said.iter().map(|one| one.header("access-control-allow-origin").join(",")).collect();
    ensure!(origins == ["https://shop.example.com", "https://a.trusted.example", "", ""], "{origins:?}");
    ensure!(said[1].header("access-control-expose-headers") == ["x-answer"], "{said:?}");
    Ok(())
}
