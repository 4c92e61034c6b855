-- One row for each flight on the schedule. `time_hour` is the UTC hour of the scheduled departure; the local clock time is
-- `sched_dep_time` (hhmm). A schedule is published long before; a day is the least that a passenger can count on.
-- The tail number is the one that flew: a swap of aircraft on the day itself is not in the file.
SELECT
    concat_ws('-', carrier, flight, origin, strftime(time_hour + to_minutes(minute), '%Y%m%dT%H%M')) AS flight_id,
    time_hour + to_minutes(minute) AS sched_dep,
    time_hour + to_minutes(minute) - INTERVAL 1 DAY AS published,
    make_timestamp(year, month, day, hour, minute, 0) AS sched_dep_local,
    carrier, origin, dest, tailnum, distance,
    date_diff('minute',
        make_timestamp(year, month, day, hour, minute, 0),
        make_timestamp(year, month, day, sched_arr_time // 100 % 24, sched_arr_time % 100, 0)) AS clock_minutes
FROM flights
