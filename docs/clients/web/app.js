// The page: shows what is in IndexedDB, puts writes there, and asks the worker to send them. It knows no token.
"use strict";

const by = (id) => document.getElementById(id);
let said = { is: "done" };
let pause = 1; // seconds
let timer;

// One after the other, so that an older look never overwrites a newer one.
let drawn = Promise.resolve();
const render = () => (drawn = drawn.then(draw, draw));

async function draw() {
  const [user, all] = [await currentUser(), await writes.all()];
  const [own, others] = [all.filter((write) => write.user === user?.id), all.filter((write) => write.user !== user?.id)];
  const needsSignIn = !user && (said.is === "sign_in" || (await facts.get("leaving")));
  by("sign-in").hidden = !needsSignIn;
  by("work").hidden = !user;
  by("who").textContent = user ? `Signed in as ${user.name}` : "";
  by("waiting").replaceChildren(...own.map(item));
  // How many, and no more: they are not this user's to read.
  by("others").textContent = others.length ? `${others.length} not sent: whoever wrote them has to sign in again.` : "";
  const open = own.filter((write) => !write.refused).length;
  by("status").textContent = statusOf(user, needsSignIn, open);
}

function statusOf(user, needsSignIn, open) {
  if (needsSignIn) return "You are signed out.";
  if (said.is === "later") return open ? `${open} waiting for a connection.` : "No connection.";
  if (!user) return "One moment.";
  return open ? `Sending ${open}.` : "Everything is sent.";
}

function item(write) {
  const element = document.createElement("li");
  element.textContent = write.refused ? `${write.body.what}: refused. ${write.refused} ` : write.body.what;
  if (write.refused) {
    const button = document.createElement("button");
    button.textContent = "Remove";
    button.ariaLabel = `Remove ${write.body.what}`;
    button.onclick = () => writes.remove(write.number).then(render);
    element.append(button);
  }
  return element;
}

async function sync() {
  clearTimeout(timer);
  const registration = await navigator.serviceWorker.ready;
  registration.active.postMessage("sync");
}

// The worker's report. Try later means: after what the gateway asks for, or pauses that grow, never all clients at once.
navigator.serviceWorker.onmessage = ({ data }) => {
  said = data;
  clearTimeout(timer);
  pause = said.is === "later" ? Math.min(pause * 2, 60) : 1;
  if (said.is === "later") timer = setTimeout(sync, (said.after ?? pause / 2) * 1000 * (1 + Math.random() / 2));
  render();
};

by("order").addEventListener("submit", async (event) => {
  event.preventDefault();
  const what = by("what").value;
  event.target.reset(); // at once: pressed twice, it must not order twice
  const user = await currentUser();
  if (!user) return render(); // signed out in another tab
  // The key is made once, here, and stays with the write however often it is sent.
  await writes.put({ key: crypto.randomUUID(), user: user.id, body: { what } });
  await render();
  sync();
  const registration = await navigator.serviceWorker.ready;
  registration.sync?.register("orders").catch(() => {}); // not in every browser, and not always allowed
});

by("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = by("name").value;
  const members = { password: by("password").value, platform: "web", device_name: "Browser", cookies: true };
  members[name.includes("@") ? "email" : "username"] = name;
  const answered = await alone(async () => {
    const left = await leave(); // the session before this one must not outlive its sign-out
    return left.is === "done" ? send("/auth/login", json(members)) : left;
  });
  by("alert").textContent = "";
  if (answered.is === "done") {
    event.target.reset();
    said = { is: "done" };
    return sync();
  }
  const wait = answered.after ? ` Try again in ${answered.after} seconds.` : " Try again later.";
  by("alert").textContent = answered.is === "later" ? `No answer.${wait}` : answered.why;
});

by("sign-out").addEventListener("click", async () => {
  await facts.set("leaving", true); // first, so that it is not forgotten if the browser closes now
  await render();
  sync();
});

addEventListener("online", sync);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && sync());

navigator.serviceWorker.register("sw.js").then(sync);
navigator.storage.persist?.(); // or the browser may throw the queue away when the disk is full
render();
