//! `RabbitMQ`'s stock clients against the built binary: every script of tests/python/amqp (pika's tutorials, Celery's simplest app).

use kiln_tests::{Cluster, python};

#[test]
fn every_script() {
    let cluster = Cluster::start(1);
    let scripts = python::scripts("amqp");
    assert!(!scripts.is_empty(), "tests/python/amqp has no scripts");
    for script in scripts {
        let output = cluster.python(&script, &[]).ok();
        println!("{script}: good\n{}", output.stdout);
    }
}
