//! `switchboard import`: exports of the old system, good rows and bad ones, once and again.

use std::{fs, path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection, Executor};

use crate::support::{
    MOSCOW_LINE,
    database::TestDatabase,
    eventually,
    files::TempDir,
    found_company,
    process::{self, Outcome},
};

const HEADING: &str = "Номер;Дата создания;Телефон;Имя;Адрес;Город;РК;Тип;Направление;Статус;Мастер;Итог;Расход;Чистыми;\
     Сдача мастера;Дата закрытия;Комментарий;Дата встречи;Дата перезвона;Дата продолжения";
const ROWS: usize = 5_000;

/// A database with two cities and the two masters whose requests are imported.
async fn company(files: &TempDir) -> TestDatabase {
    let database = TestDatabase::create().await;
    found_company(&database).await;
    database.execute("UPDATE cities SET name_ru = 'Москва', name_en = 'Moscow' WHERE code = 'moscow'").await;
    database.execute("UPDATE cities SET name_ru = 'Казань' WHERE code = 'kazan'").await;
    let masters =
        "Номер;ФИО;Город;Доля;Логин\r\n7;Пётр Ёлкин;Москва, Казань;50%;elkin\r\n8;Иван Сидоров;Казань;0,35;\r\n";
    // As Excel writes it.
    fs::write(files.path().join("masters.csv"), windows_1251(masters)).unwrap();
    let said = import(&database, "masters", &files.path().join("masters.csv")).await.success();
    assert!(said.contains("accepted       2"), "{said}");
    database
}

async fn import(database: &TestDatabase, kind: &str, file: &Path) -> Outcome {
    process::run_beside(&["import", kind, file.to_str().unwrap()], &[("DATABASE_URL", database.url())]).await
}

fn windows_1251(text: &str) -> Vec<u8> {
    let byte = |c: char| match c {
        'А'..='я' => u8::try_from(u32::from(c) - u32::from('А') + 0xC0).unwrap(),
        'Ё' => 0xA8,
        'ё' => 0xB8,
        _ => u8::try_from(c).unwrap(),
    };
    text.chars().map(byte).collect()
}

/// One of every state in turn, each a valid row.
fn good(n: usize) -> Vec<String> {
    let mut row = vec![String::new(); 20];
    let mut set = |index: usize, value: String| row[index] = value;
    let (day, hour) = (1 + n % 28, n % 12);
    set(0, n.to_string());
    set(1, format!("{day:02}.{:02}.2025 {hour:02}:15", 1 + n % 12));
    // Every third client calls again.
    set(2, format!("8 (916) {:03}-{:02}-00", 100 + n % 1_667 / 10, n % 10));
    set(3, format!("Клиент {n}"));
    set(4, format!("ул. Ленина, д. {n}; кв. 1"));
    set(5, ["Москва", "казань", "moscow"][n % 3].to_owned());
    set(7, ["Впервые", "Повтор", "Гарантия"][n % 3].to_owned());
    set(8, ["Сантехника", "", "Электрика"][n % 3].to_owned());
    let closed = format!("{day:02}.{:02}.2025 {:02}:40:30", 1 + n % 12, hour + 4);
    let meeting = format!("2025-{:02}-{day:02} {:02}:00", 1 + n % 12, hour + 1);
    set(16, "Домофон \"не работает\"\nзвонить".to_owned());
    let status = match n % 20 {
        0 => "Новая",
        1 => "Перезвонить",
        2 => "Не отвечает",
        3 => "Незаказ",
        4 => "Ожидает",
        5 => "Принял",
        6 => "В пути",
        7 => "В работе",
        8 => "Модерн",
        9 | 10 => "Отказ",
        _ => "Готово",
    };
    set(9, status.to_owned());
    match status {
        "Перезвонить" => set(18, meeting),
        "Незаказ" | "Отказ" => {
            set(15, closed);
            set(11, "0".to_owned());
        }
        "Ожидает" => set(17, meeting),
        "Принял" | "В пути" | "В работе" | "Модерн" => {
            set(10, "7".to_owned());
            set(17, meeting.clone());
            set(19, if status == "Модерн" { meeting } else { String::new() });
        }
        "Готово" => {
            set(10, ["elkin", "Иван Сидоров"][n % 2].to_owned());
            let (result, expenses) = (3_000 + n % 500, n % 300);
            set(11, format!("{} {:03},50 ₽", result / 1_000, result % 1_000));
            set(12, expenses.to_string());
            // What was handed over stands there, or follows from the share.
            if n % 4 == 1 {
                set(13, format!("{}.50", result - expenses));
                set(14, "1000".to_owned());
            }
            set(15, closed);
        }
        _ => {}
    }
    row
}

fn line(row: &[String]) -> Vec<u8> {
    let quoted = row.iter().map(|value| {
        let special = value.contains([';', '"', '\n']);
        if special { format!("\"{}\"", value.replace('"', "\"\"")) } else { value.clone() }
    });
    quoted.collect::<Vec<_>>().join(";").into_bytes()
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// What is planted into a row that would be fine: the column, the value, and what is said about it.
fn mistakes() -> Vec<(usize, String, &'static str)> {
    let plant = |column: usize, value: &str, reason: &'static str| (column, value.to_owned(), reason);
    vec![
        plant(0, "", "Номер: is missing"),
        plant(0, &"9".repeat(65), "Номер: has 65 characters; at most 64 fit"),
        // Of row 1, which says something else.
        plant(0, "1", "line 2 has the same number and says something else"),
        plant(1, "31.02.2025 10:00", "Дата создания: is no date and time that exists; write DD.MM.YYYY HH:MM"),
        plant(1, "01.03.2025", "Дата создания: is no date and time that exists; write DD.MM.YYYY HH:MM"),
        plant(1, "01.03.2099 10:00", "Дата создания: lies in the future; Дата закрытия: lies before the creation"),
        plant(1, "", "Дата создания: is missing"),
        plant(2, "12345", "Телефон: is no phone number"),
        plant(2, "", "Телефон: is missing"),
        plant(3, &"я".repeat(101), "Имя: has 101 characters; at most 100 fit"),
        plant(4, &"я".repeat(301), "Адрес: has 301 characters; at most 300 fit"),
        plant(4, "", "Адрес: is needed by the status done"),
        plant(5, "Атлантида", "Город: there is no such city; known: Москва, Казань"),
        plant(5, "", "Город: is missing"),
        plant(6, "Радио", "РК: the city has no such campaign; import campaigns first"),
        plant(7, "Иногда", "Тип: is none of Впервые, Повтор, Гарантия"),
        plant(7, "", "Тип: is missing"),
        plant(8, "Космос", "Направление: is none of Сантехника"),
        plant(9, "Летит", "Статус: is none of Новая, Перезвонить"),
        plant(9, "", "Статус: is missing"),
        plant(9, "В работе", "Итог: has no place in the status in_progress"),
        plant(10, "Никто", "Мастер: there is no such master; import masters first"),
        plant(10, "", "Мастер: is needed by the status done"),
        plant(11, "", "Итог: is needed by the status done"),
        plant(11, "-100", "Итог: must not be negative"),
        plant(11, "много", "Итог: is no amount of money"),
        plant(11, "100,123", "Итог: has more than two decimals"),
        plant(11, "99999999999", "Итог: is too large"),
        plant(12, "9000", "Расход: must not exceed the result"),
        plant(13, "1", "Чистыми: is not the result without the expenses"),
        plant(14, "9000", "Сдача мастера: must not exceed the net"),
        plant(15, "", "Дата закрытия: is needed by the status done"),
        plant(15, "01.01.2025 00:00", "Дата закрытия: lies before the creation"),
        plant(16, &"я".repeat(2001), "Комментарий: is too long: at most 2000 characters fit"),
    ]
}

/// The file, and of each bad row its line and the reason.
fn export() -> (Vec<u8>, Vec<(u64, &'static str)>) {
    let mistakes = mistakes();
    // Of a row that is done, every hundred rows.
    let bad = |n: usize| (n > 100 && n % 100 == 15).then(|| n / 100 - 1);
    let (mut content, mut reasons, mut at) = (format!("{HEADING}\n").into_bytes(), Vec::new(), 2);
    for n in 1..=ROWS {
        let mut row = good(n);
        let mut bytes = line(&row);
        let mut lines = newlines(&bytes);
        match bad(n) {
            Some(index) if index < mistakes.len() => {
                let (column, value, reason) = &mistakes[index];
                row[*column].clone_from(value);
                bytes = line(&row);
                lines = newlines(&bytes);
                reasons.push((at, *reason));
            }
            Some(34) => {
                bytes = format!("{n};01.03.2025 10:00;89161234567").into_bytes();
                lines = 0;
                reasons.push((at, "the row has 3 columns and the heading 20"));
            }
            Some(35) => {
                let cut = bytes.windows(2).position(|pair| pair == "К".as_bytes()).unwrap();
                bytes[cut + 1] = b'!';
                reasons.push((at, "column 4: is no valid UTF-8"));
            }
            Some(36) => {
                bytes = format!("{n};01.03.2025 10:00;89161234567;\"Клиент").into_bytes();
                lines = 0;
                reasons.push((at, "a quotation mark is opened and not closed"));
            }
            _ => {}
        }
        content.extend(bytes);
        content.push(b'\n');
        at += lines + 1;
    }
    (content, reasons)
}

/// What was imported, without the ids that this database happened to give.
async fn content_of(database: &TestDatabase) -> Vec<String> {
    let sql = "SELECT concat_ws('|', k.external_id, c.phone_e164, ci.code, t.code, r.status, r.source, r.client_name, r.address,
                      r.description, u.login, r.created_at, r.meeting_at, r.callback_at, r.resume_at, r.closed_at, r.result,
                      r.expenses, r.net, r.handover, r.version,
                      (SELECT string_agg(concat_ws(',', e.kind, e.at, e.actor_id, e.from_status, e.to_status, e.reason, e.diff), ';' ORDER BY e.id)
                         FROM request_events e WHERE e.request_id = r.id),
                      (SELECT string_agg(concat_ws(',', m.amount, m.at, m.master_id = r.master_id, m.actor_id), ';') FROM transactions m WHERE m.request_id = r.id))
                 FROM imported_keys k JOIN requests r ON r.id = k.id AND k.kind = 'requests' JOIN clients c ON c.id = r.client_id
                 JOIN cities ci ON ci.id = r.city_id JOIN request_types t ON t.id = r.type_id LEFT JOIN users u ON u.id = r.master_id
                ORDER BY k.external_id";
    sqlx::query_scalar(sql).fetch_all(&mut database.connect().await).await.unwrap()
}

/// Whether ledger and histories say the same.
async fn assert_consistent(database: &TestDatabase) {
    let done = database.count("SELECT count(*) FROM request_events WHERE to_status = 'done'").await;
    assert!(done > 2_000, "{done}");
    assert_eq!(database.count("SELECT count(*) FROM transactions").await, done);
    let agreeing = "SELECT count(*) FROM requests r JOIN transactions t ON t.request_id = r.id AND t.amount = r.handover AND t.at = r.closed_at
                      JOIN request_events e ON e.request_id = r.id AND e.to_status = 'done' AND e.at = t.at WHERE r.status = 'done'";
    assert_eq!(database.count(agreeing).await, done);
    let last = "SELECT count(*) FROM requests r WHERE status <> (SELECT to_status FROM request_events e WHERE e.request_id = r.id ORDER BY id DESC LIMIT 1)";
    assert_eq!(database.count(last).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_5000_rows_37_are_bad_and_explained_and_twice_is_once() {
    let files = TempDir::create();
    let database = company(&files).await;
    let (content, reasons) = export();
    assert_eq!(reasons.len(), 37);
    let file = files.path().join("requests.csv");
    fs::write(&file, &content).unwrap();

    let first = import(&database, "requests", &file).await;
    assert_eq!(first.code, Some(3), "{first:?}");
    for said in ["read           5000", "accepted       4963", "already there  0", "rejected       37"] {
        assert!(first.stdout.contains(said), "{said}: {}", first.stdout);
    }
    assert!(
        !first.stdout.contains("Клиент") && !first.stderr.contains("Клиент"),
        "personal data in the log: {first:?}"
    );
    let told = "SELECT sum((detail->>'rows')::bigint)::bigint FROM audit_log WHERE via = 'cli' AND action = 'imported' AND subject = 'requests'";
    assert_eq!(database.count(told).await, 4963);
    let rejects = fs::read(files.path().join("requests.rejects.csv")).unwrap();
    let rejects = String::from_utf8_lossy(&rejects).into_owned();
    assert!(rejects.starts_with(&format!("\u{feff}line;reason;{HEADING}\r\n")), "{}", &rejects[..200]);
    let explained: Vec<(u64, &str)> = rejects
        .split("\r\n")
        .skip(1)
        .filter(|row| !row.is_empty())
        .map(|row| {
            let (line, rest) = row.split_once(';').unwrap();
            (line.parse().unwrap(), rest.strip_prefix('"').unwrap().split_once("\";").unwrap().0)
        })
        .collect();
    assert_eq!(explained.len(), 37, "{explained:#?}");
    for ((line, reason), (expected_line, expected)) in explained.iter().zip(&reasons) {
        assert_eq!(line, expected_line, "{reason} instead of {expected}");
        assert!(reason.starts_with(expected), "line {line}: {reason} instead of {expected}");
    }

    assert_eq!(database.count("SELECT count(*) FROM requests").await, 4_963);
    for status in
        ["new", "callback", "no_answer", "not_order", "waiting", "accepted", "en_route", "in_progress", "deferred"]
    {
        let sql = format!("SELECT count(*) FROM requests WHERE status = '{status}'");
        assert_eq!(database.count(&sql).await, 250, "{status}");
    }
    assert_consistent(&database).await;
    let kept = content_of(&database).await;
    // Row 1,131 in full: the city's time zone, the money, the history, all by the system.
    let row = kept.iter().find(|row| row.starts_with("1131|")).unwrap();
    for part in [
        "|done|manual|Клиент 1131|ул. Ленина, д. 1131; кв. 1|",
        "|2025-04-12 00:15:00+00|",
        "|3131.50|231.00|2900.50|1015.18|",
    ] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(row.contains("created,2025-04-12 00:15:00+00,new,{\"imported\": [null, \"1131\"]};transition,2025-04-12 04:40:30+00,new,done,imported,{}|1015.18,2025-04-12 04:40:30+00,t"), "{row}");

    let again = import(&database, "requests", &file).await;
    assert_eq!(again.code, Some(3), "{again:?}");
    for said in ["accepted       0", "already there  4963", "rejected       37"] {
        assert!(again.stdout.contains(said), "{said}: {}", again.stdout);
    }
    assert_eq!(content_of(&database).await, kept, "twice is once");

    // The rejects are a file like any other: mended, they are imported. Reading them as text has mended a second
    // one, and the one with the number of row 1 is taken for that.
    let mended = rejects.replace(";31.02.2025 10:00;", ";28.01.2025 10:00;");
    assert_ne!(mended, rejects);
    let file = files.path().join("mended.csv");
    fs::write(&file, mended).unwrap();
    let mended = import(&database, "requests", &file).await;
    assert!(mended.stdout.contains("accepted       2\n") && mended.stdout.contains("rejected       34"), "{mended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    let files = TempDir::create();
    let (straight, broken) = (company(&files).await, company(&files).await);
    let file = files.path().join("requests.csv");
    fs::write(&file, export().0).unwrap();
    assert_eq!(import(&straight, "requests", &file).await.code, Some(3));

    // Somebody holds what the batch of row 2,501 needs, so that it is killed in the middle of it.
    let mut blocker = broken.connect().await;
    let mut held = blocker.begin().await.unwrap();
    held.execute("INSERT INTO imported_keys VALUES ('requests', '2501', 0)").await.unwrap();
    let mut command = process::command(&["import", "requests", file.to_str().unwrap(), "--batch-rows", "250"]);
    let mut child =
        command.env("DATABASE_URL", broken.url()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let half = async || {
        (broken.count("SELECT COALESCE(sum(rows_done), 0)::bigint FROM import_runs WHERE kind = 'requests'").await
            == 2_500)
            .then_some(())
    };
    eventually("half of the file is in", half).await;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed and did not end by itself");
    held.rollback().await.unwrap();
    let there = broken.count("SELECT count(*) FROM requests").await;
    assert!((2_400..=2_500).contains(&there), "{there}");

    let rest = import(&broken, "requests", &file).await;
    assert_eq!(rest.code, Some(3), "{rest:?}");
    assert!(rest.stderr.contains("going on after row 2500"), "{rest:?}");
    assert!(rest.stdout.contains("accepted       4963") && rest.stdout.contains("rejected       37"), "{rest:?}");
    assert_eq!(content_of(&broken).await, content_of(&straight).await);
    assert_consistent(&broken).await;
    assert_eq!(broken.count("SELECT count(*) FROM import_rejects").await, 37);
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_campaigns_and_cash_come_over_too() {
    let files = TempDir::create();
    let database = company(&files).await;
    let write = |name: &str, content: &str| {
        fs::write(files.path().join(name), content).unwrap();
        files.path().join(name)
    };
    let masters = "SELECT count(*) FROM users u JOIN master_profiles p ON p.user_id = u.id WHERE u.role = 'master' AND u.status = 'active'
                      AND password_hash LIKE 'v2.%$2%' AND ((login, name, share) IN (('elkin', 'Пётр Ёлкин', 0.5), ('master-8', 'Иван Сидоров', 0.35)))";
    assert_eq!(database.count(masters).await, 2);
    assert_eq!(database.count("SELECT count(*) FROM user_cities").await, 3);
    let more = write(
        "more.csv",
        "number,name,cities,share,login\n9,Другой,Москва,1.5%,ELKIN\n7,Пётр Ёлкин,Москва,0.5,elkin\n10,Никто,Тверь,200,x\n",
    );
    let outcome = import(&database, "masters", &more).await;
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let rejects = fs::read_to_string(files.path().join("more.rejects.csv")).unwrap();
    assert!(rejects.contains("2,\"the login is taken\",9,Другой"), "{rejects}");
    assert!(outcome.stdout.contains("already there  1"), "{outcome:?}");
    for reason in ["login: must be 2 to 64", "share: is no part", "cities: there is no such city"] {
        assert!(rejects.contains(reason), "{reason}: {rejects}");
    }

    let campaigns = format!(
        "Номер;Название;Город;Телефоны\n1;Авито Жёлтые;Москва;8 (495) 000-02-02, 74950000303\n2;Листовки;Казань;{MOSCOW_LINE}\n"
    );
    let campaigns = write("campaigns.csv", &campaigns);
    assert_eq!(import(&database, "campaigns", &campaigns).await.code, Some(3));
    let again = import(&database, "campaigns", &campaigns).await;
    assert!(again.stdout.contains("already there  1\n") && again.stdout.contains("rejected       1\n"), "{again:?}");
    let rejects = fs::read_to_string(files.path().join("campaigns.rejects.csv")).unwrap();
    assert!(rejects.contains("3;\"a number belongs to another campaign\";2;"), "{rejects}");
    let lines = "SELECT count(*) FROM campaign_numbers n JOIN advertising_campaigns c ON c.id = n.campaign_id
                  WHERE c.code = 'moscow_avito_zheltye' AND phone_e164 IN ('+74950000202', '+74950000303')";
    assert_eq!(database.count(lines).await, 2);

    let requests = "Номер;Дата создания;Телефон;Адрес;Город;РК;Тип;Статус;Мастер;Итог;Дата закрытия\n\
         41;01.03.2025 10:00;89161234567;Тверская 1;Москва;авито желтые;Впервые;Готово;elkin;3000;01.03.2025 12:00\n\
         42;02.03.2025 10:00;89161234567;Тверская 1;Москва;;Повтор;Отказ;;;02.03.2025 12:00\n";
    import(&database, "requests", &write("requests.csv", requests)).await.success();
    assert_eq!(database.count("SELECT count(*) FROM requests WHERE campaign_id IS NOT NULL").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM clients").await, 1);

    let cash = "Номер;Дата;Город;Тип;Сумма;Мастер;Заявка;Кто\n\
         1;01.03.2025 12:00;Москва;Приход;1500;elkin;41;x\n\
         2;01.03.2025 13:00;Москва;Расход;1 200,50;;;x\n\
         3;01.03.2025 14:00;Казань;Приход;99;;;x\n\
         4;01.03.2025 12:00;Москва;Приход;1400;elkin;41;x\n\
         5;02.03.2025 12:00;Москва;Приход;10;elkin;42;x\n\
         6;02.03.2025 12:00;Москва;Приход;10;elkin;43;x\n\
         7;02.03.2025 12:00;Москва;Расход;0;;;x\n\
         8;02.03.2025 13:00;Москва;Расход;100;elkin;41;x\n";
    let cash = write("cash.csv", cash);
    for accepted in [3, 0] {
        let outcome = import(&database, "transactions", &cash).await;
        assert!(outcome.stderr.contains("columns that are not used: Кто"), "{outcome:?}");
        assert!(outcome.stdout.contains(&format!("accepted       {accepted}\n")), "{outcome:?}");
        assert_eq!(outcome.code, Some(3));
        let ledger: Vec<String> = sqlx::query_scalar("SELECT amount::text FROM transactions ORDER BY id")
            .fetch_all(&mut database.connect().await)
            .await
            .unwrap();
        assert_eq!(ledger, ["1500.00", "-1200.50", "99.00", "-100.00"]);
    }
    // Reopening takes back what the request's end booked, and never what a person did.
    assert_eq!(database.count("SELECT count(*) FROM transactions WHERE automatic").await, 1);
    let path = files.path().join("cash.rejects.csv");
    let rejects = fs::read_to_string(&path).unwrap();
    // Somebody is mending it.
    fs::write(&path, "half mended").unwrap();
    let outcome = import(&database, "transactions", &cash).await;
    assert!(outcome.stdout.contains("cash.rejects-2.csv"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "half mended");
    assert_eq!(fs::read_to_string(files.path().join("cash.rejects-2.csv")).unwrap(), rejects);
    for reason in [
        "5;\"the request's income is booked with another amount\"",
        "6;\"income of a request that is not done\"",
        "7;\"the request it belongs to is not here",
        "8;\"Сумма: must not be zero\"",
    ] {
        assert!(rejects.contains(reason), "{reason}: {rejects}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_at_all_is_said_in_one_line() {
    let files = TempDir::create();
    let database = TestDatabase::create().await;
    let missing = import(&database, "requests", &files.path().join("missing.csv")).await.failure(1);
    assert!(missing.contains("missing.csv"), "{missing}");
    let other = files.file("other.csv", "Имя;Телефон\nОлег;89161234567\n");
    let line = import(&database, "requests", Path::new(&other)).await.failure(1);
    assert!(line.contains("lacks columns") && line.contains("Номер (number)"), "{line}");
    let help = process::run(&["import", "--help"], &[], b"").success();
    for word in ["requests", "transactions", "Дата создания", "Windows-1251", "rejects.csv", "Exit code"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
