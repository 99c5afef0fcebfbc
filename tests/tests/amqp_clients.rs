//! `RabbitMQ`'s stock clients against the built binary: pika and Celery.

use kiln_tests::Cluster;

fn script(name: &str) {
    let cluster = Cluster::start(1);
    let _ = cluster.python(name, &["127.0.0.1", cluster.port("amqp")]).ok();
}

#[test]
fn the_six_tutorials_with_pika() {
    script("amqp/tutorials.py");
}

#[test]
fn misuse_is_answered_as_rabbitmq_does() {
    script("amqp/errors.py");
}

#[test]
fn celery_runs_a_hundred_tasks() {
    script("amqp/celery_driver.py");
}

#[test]
fn rough_handling_harms_nobody() {
    let cluster = Cluster::start(1);
    let leader = cluster.pid(0);
    let _ = cluster.python("amqp/rough.py", &["127.0.0.1", cluster.port("amqp")]).ok();
    assert_eq!(cluster.pid(0), leader, "the leader is the same process");
}
