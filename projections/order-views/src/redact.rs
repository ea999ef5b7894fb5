//! Payment tokens are secrets: they are shown to nobody.

use serde_json::Value;

/// Puts `…` in place of payment tokens, which are secrets. One has this name wherever it is:
/// [`orders::order::PaymentMethod`].
pub fn hide_tokens(json: &mut Value) {
    match json {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match name.as_str() {
            "token" => *value = "…".into(),
            _ => hide_tokens(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(hide_tokens),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orders::Command;
    use orders::id::{OrderId, PaymentId};
    use orders::money::Amount;
    use orders::order::PaymentMethod;
    use orders::payment;
    use orders::reaction::{Act, Operation, ProviderCall};
    use serde_json::json;
    use uuid::Uuid;

    /// What `act` says of the payment method, at `path`, once its token is hidden.
    fn shown(act: &Act, path: &str) -> Value {
        let mut act = serde_json::to_value(act).unwrap();
        assert_eq!(act.pointer(path).unwrap()["token"], "tok_secret");
        hide_tokens(&mut act);
        assert!(!act.to_string().contains("tok_secret"), "{act}");
        act.pointer(path).unwrap().clone()
    }

    #[test]
    fn no_act_shows_a_token() {
        let hidden = json!({ "kind": "credit_card", "token": "…" });
        let method = PaymentMethod { kind: "credit_card".into(), token: "tok_secret".into() };
        let (order_id, amount, currency) = (OrderId(Uuid::nil()), Amount(1), "EUR".parse().unwrap());
        let payment_id = PaymentId::of_order(order_id, 0);
        let operation = Operation::Authorise { order_id, amount, currency, method: method.clone() };
        let call = Act::Provider(ProviderCall { payment_id, idempotency_key: payment_id.0, operation });
        assert_eq!(shown(&call, "/provider/operation/authorise/method"), hidden);
        let command = payment::Command::Authorise { order_id, amount, currency, method };
        let command = Act::Command(Command::Payment { id: payment_id, command });
        assert_eq!(shown(&command, "/command/payment/command/authorise/method"), hidden);
        // Also where there are several.
        let mut several = json!({ "payments": [{ "token": "tok_1" }, { "method": { "token": { "v": "tok_2" } } }] });
        hide_tokens(&mut several);
        assert_eq!(several, json!({ "payments": [{ "token": "…" }, { "method": { "token": "…" } }] }));
    }
}
