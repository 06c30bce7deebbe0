//! A console in a browser, at a real gateway.

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::fleet::{Fleet, Handle};

/// A page of the console with somebody signed in.
pub struct Page {
    pub browser: Browser,
    pub address: String,
}

impl Page {
    /// Opens it: `hash` names the page, as `#/jobs`.
    pub async fn open(fleet: &Fleet, gateway: Handle, user: &str, hash: &str) -> Self {
        let token = fleet.token(user, "acme");
        let address = fleet.process(gateway).address.clone();
        let browser = Browser::open(&format!("http://{address}/?token={token}{hash}")).await;
        let mut page = Self { browser, address };
        page.until("the page is live", "document.getElementById('connection')?.innerText.trim() === 'Live'").await;
        page
    }

    /// Goes to another page of it.
    pub async fn go(&mut self, hash: &str) {
        self.browser.eval(&format!("location.hash = {hash:?}")).await;
    }

    /// Loads it anew, and waits until it is live again.
    pub async fn reload(&mut self) {
        self.eval("window.isOld = true; location.reload()").await;
        let live = "!window.isOld && document.getElementById('connection')?.innerText.trim() === 'Live'";
        self.until("the page is loaded anew", live).await;
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        self.browser.until(what, expression).await;
    }

    pub async fn eval(&mut self, expression: &str) -> Value {
        self.browser.eval(expression).await
    }

    /// Waits until the page says this.
    pub async fn says(&mut self, text: &str) {
        let said = format!("Boolean(document.getElementById('page')?.innerText.includes({text:?}))");
        self.until(&format!("the page says {text}"), &said).await;
    }

    /// Waits until the row of a job or campaign says this.
    pub async fn row_says(&mut self, id: &str, text: &str) {
        let said = format!("Boolean({}?.innerText.includes({text:?}))", row(id));
        self.until(&format!("the row of {id} says {text}"), &said).await;
    }

    /// Presses a button as soon as it can be pressed: the one with this text within what `inside` gives.
    pub async fn press_in(&mut self, inside: &str, button: &str) {
        let pressed = format!(
            "(() => {{ const button = [...({inside}?.querySelectorAll('button') ?? [])].find((b) => \
             b.innerText.trim() === {button:?} && !b.disabled && b.checkVisibility()); button?.click(); return Boolean(button); }})()"
        );
        self.until(&format!("there is a button {button}"), &pressed).await;
    }

    pub async fn press(&mut self, button: &str) {
        self.press_in("document.getElementById('content')", button).await;
    }

    pub async fn press_in_row(&mut self, id: &str, button: &str) {
        self.press_in(&row(id), button).await;
    }

    /// Presses a button of a row until the row says this: again where it was refused, as where Redis was busy just then.
    pub async fn press_until_row_says(&mut self, id: &str, button: &str, text: &str) {
        let row = row(id);
        let pressed = format!(
            "(() => {{ const row = {row}; if (row?.innerText.includes({text:?})) return true; \
             [...(row?.querySelectorAll('button') ?? [])].find((b) => b.innerText === {button:?} && !b.disabled)?.click(); \
             return false; }})()"
        );
        self.until(&format!("the row of {id} says {text}"), &pressed).await;
    }

    /// Presses in the dialog that is open.
    pub async fn press_in_dialog(&mut self, button: &str) {
        self.press_in("document.querySelector('dialog[open]')", button).await;
    }
}

/// The row of a list with this id in it.
pub fn row(id: &str) -> String {
    format!("[...document.querySelectorAll('.rows .row')].find((row) => row.innerText.includes('{id}'))")
}
