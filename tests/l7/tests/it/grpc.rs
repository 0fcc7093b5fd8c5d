//! The gRPC of Python as server and as client.

use crate::isolate::isolated_test;
use crate::program::{python, python_there, script, serve, told};
use crate::resources::Service;
use crate::world::{PORT, World};

const GRPC: Service = Service::http2("grpc", 9200);

isolated_test! {
    with python_there();
    async fn grpc_calls_of_every_shape_work() {
        let script = script("grpc_calls.py");
        let _server = serve(&python(), &[&script, "serve", &GRPC.target.to_string()], GRPC.target).await;
        let world = World::one(GRPC).await;
        let said = told(&python(), &[&script, "call", &PORT.to_string()]).await;
        let expected = "unary\nmetadata\nlarge\nserver stream\nclient stream\nbidirectional\nerror\ndeadline\ncancelled\n\
                        cancelled stream\nmany\nunimplemented\n";
        assert_eq!(said, expected, "{}", world.log());
    }
}

isolated_test! {
    with python_there();
    async fn waypoint_row_16_a_call_without_anybody_to_answer_is_unavailable() {
        let _world = World::one(GRPC).await;
        let said = told(&python(), &[&script("grpc_calls.py"), "unavailable", &PORT.to_string()]).await;
        assert_eq!(said, "UNAVAILABLE\n");
    }
}
